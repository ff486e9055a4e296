"""Neovim: a compiler for `:make`, a plugin that keeps `devloop dev` running, and a block in
.nvim.lua, which Neovim reads in a workspace where `exrc` is set, that makes both be found.

The compiler is plain Vim script and serves Vim as well.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, Any

from devloop.editor.debuggers import attach_label, attachment
from devloop.editor.problems import VIM_ERRORFORMAT, in_directory
from devloop.editor.tasks import tasks_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from devloop.editor.tasks import EditorProject

_BLOCK = """\
-- devloop: begin (written by `devloop editor nvim`)
vim.opt.runtimepath:append(vim.fn.getcwd() .. "/.nvim")
vim.cmd("runtime plugin/devloop.lua")
-- devloop: end
"""
_OLD_BLOCK = re.compile(
    r"^-- devloop: begin\b.*\n(?:.*\n)*?-- devloop: end.*(?:\n|\Z)", re.MULTILINE
)

_COMPILER = r"""" Written by `devloop editor nvim`: `:compiler devloop`, then `:make`.
if exists("current_compiler")
  finish
endif
let current_compiler = "devloop"
let s:cpo_save = &cpo
set cpo&vim
CompilerSet makeprg=@MAKEPRG@
CompilerSet errorformat=@ERRORFORMAT@
let &cpo = s:cpo_save
unlet s:cpo_save
"""

_PLUGIN = r"""-- Written by `devloop editor nvim`. `:Devloop` runs `devloop dev` in the background:
-- after each of its iterations the quickfix list and the diagnostics are what is wrong.
-- `:DevloopStop` ends it, `:DevloopOutput` shows what it printed; `:DevloopDebug SERVICE` attaches
-- nvim-dap to a service with `debug`.
if vim.g.loaded_devloop then
  return
end
vim.g.loaded_devloop = true

local root = vim.fn.getcwd() .. @DIRECTORY@
local command = { @COMMAND@ }
local errorformat = [[@ERRORFORMAT@]]
local space = vim.api.nvim_create_namespace("devloop")
local job, output, partial, found, active = nil, nil, "", {}, false

local function show()
  local lines = vim.list_extend({ string.format(@IN@, root) }, found)
  vim.fn.setqflist({}, "r", { title = "devloop", lines = lines, efm = errorformat })
  local buffers = {}
  for _, item in ipairs(vim.fn.getqflist()) do
    if item.valid == 1 and item.bufnr > 0 then
      buffers[item.bufnr] = buffers[item.bufnr] or {}
      table.insert(buffers[item.bufnr], item)
    end
  end
  vim.diagnostic.reset(space)
  for buffer, items in pairs(buffers) do
    vim.diagnostic.set(space, buffer, vim.diagnostic.fromqflist(items))
  end
end

local function marks(line, word)
  local start = "^devloop: " .. word .. " "
  return line:match(start .. "#%d+") or line:match(start .. "config")
end

local function line_read(line)
  if output and vim.api.nvim_buf_is_valid(output) then
    vim.api.nvim_buf_set_lines(output, -1, -1, false, { line })
    if vim.api.nvim_buf_line_count(output) > 10000 then
      vim.api.nvim_buf_set_lines(output, 0, 1000, false, {})
    end
  end
  if marks(line, "begin") then
    if not active then
      active, found = true, {}
    end
  elseif marks(line, "end") then
    active = false
    show()
  elseif line:match("^.+:%d+:%d+: %a+%[") then
    table.insert(found, line)
    if not active then
      show()
    end
  end
end

local function read(_, data)
  data[1] = partial .. data[1]
  partial = table.remove(data)
  for _, line in ipairs(data) do
    line_read(line)
  end
end

vim.api.nvim_create_user_command("Devloop", function()
  if job then
    return vim.notify("devloop runs already")
  end
  output = output or vim.api.nvim_create_buf(false, true)
  partial, found, active = "", {}, false
  job = vim.fn.jobstart(command, {
    cwd = root,
    on_stdout = read,
    on_exit = function(_, status)
      job = nil
      show()
      vim.notify("devloop ended with status " .. status)
    end,
  })
end, { desc = "Run devloop dev in the background" })

vim.api.nvim_create_user_command("DevloopStop", function()
  if job then
    vim.fn.jobstop(job)
  end
end, { desc = "Stop devloop dev" })

-- What nvim-dap needs to attach to each service that is debugged.
local debuggers = vim.json.decode(@DEBUGGERS@)

vim.api.nvim_create_user_command("DevloopDebug", function(options)
  local found, dap = pcall(require, "dap")
  local name = options.args ~= "" and options.args or next(debuggers)
  if not found then
    return vim.notify("DevloopDebug needs nvim-dap")
  elseif not debuggers[name] then
    return vim.notify("devloop.yaml has no service " .. tostring(name) .. " with `debug`")
  end
  local configuration = vim.deepcopy(debuggers[name])
  if configuration.type ~= "pwa-node" then
    configuration.type = "devloop-" .. name
    local port = configuration.port or configuration.connect.port
    dap.adapters[configuration.type] = { type = "server", host = "127.0.0.1", port = port }
  end
  dap.run(configuration)
end, {
  nargs = "?",
  complete = function()
    return vim.tbl_keys(debuggers)
  end,
  desc = "Attach nvim-dap to a service with `debug`",
})

vim.api.nvim_create_user_command("DevloopOutput", function()
  if output then
    vim.cmd("sbuffer " .. output)
  end
end, { desc = "Show what devloop dev printed" })
"""


def files(project: EditorProject, read: Callable[[str], str | None]) -> dict[str, str]:
    """What is in .nvim is devloop's alone; of .nvim.lua one block is."""
    tasks = {task.name: task for task in tasks_of(project)}
    check = tasks["check"].shell
    if project.directory:
        entered = shlex.quote(in_directory(project.directory))
        # In parentheses: what `:make` reads is piped from the last command alone.
        check = f"(cd {shlex.quote(project.directory)} && echo {entered} && {check})"
    compiler = _filled(
        _COMPILER, MAKEPRG=_as_option(check), ERRORFORMAT=_as_option(VIM_ERRORFORMAT)
    )
    plugin = _filled(
        _PLUGIN,
        DIRECTORY=_as_lua(project.within("")),
        COMMAND=", ".join(map(_as_lua, ("devloop", *tasks["dev"].arguments))),
        ERRORFORMAT=VIM_ERRORFORMAT,
        IN=_as_lua(in_directory("%s")),
        DEBUGGERS=_as_lua(json.dumps(_debuggers(project), ensure_ascii=False)),
    )
    return {
        ".nvim/compiler/devloop.vim": compiler,
        ".nvim/plugin/devloop.lua": plugin,
        ".nvim.lua": _with_block(read(".nvim.lua") or ""),
    }


def _debuggers(project: EditorProject) -> dict[str, dict[str, Any]]:
    """By service. nvim-dap knows `${workspaceFolder}` too; node's adapter is called pwa-node."""
    found = {}
    for each in project.debuggers:
        entry = {"name": attach_label(project, each), **attachment(each, "${workspaceFolder}")}
        found[each.service] = entry | ({"type": "pwa-node"} if each.kind == "node" else {})
    return found


def _with_block(text: str) -> str:
    if found := _OLD_BLOCK.search(text):
        return text[: found.start()] + _BLOCK + text[found.end() :]
    return text + ("\n" if text and not text.endswith("\n") else "") + _BLOCK


def _filled(template: str, **values: str) -> str:
    for name, value in values.items():
        template = template.replace(f"@{name}@", value)
    return template


def _as_option(value: str) -> str:
    """For `:set`, where a space ends a value and a bar the command."""
    return re.sub(r'([\\ "|])', r"\\\1", value)


def _as_lua(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
