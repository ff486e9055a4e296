-- Written by `devloop editor nvim`. `:Devloop` runs `devloop dev` in the background:
-- after each of its iterations the quickfix list and the diagnostics are what is wrong.
-- `:DevloopStop` ends it, `:DevloopOutput` shows what it printed; `:DevloopDebug SERVICE` attaches
-- nvim-dap to a service with `debug`.
if vim.g.loaded_devloop then
  return
end
vim.g.loaded_devloop = true

local root = vim.fn.getcwd() .. ""
local command = { "devloop", "dev", "--output", "lines" }
local errorformat = [[%Ddevloop: in <%f>,%f:%l:%c: %trror%\%%([%\)%\@=%m,%f:%l:%c: %tarning%\%%([%\)%\@=%m,%f:%l:%c: %tnfo%\%%([%\)%\@=%m,%-G%.%#]]
local space = vim.api.nvim_create_namespace("devloop")
local job, output, partial, found, active = nil, nil, "", {}, false

local function show()
  local lines = vim.list_extend({ string.format("devloop: in <%s>", root) }, found)
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
local debuggers = vim.json.decode("{\"api\": {\"name\": \"devloop: debug api\", \"type\": \"debugpy\", \"request\": \"attach\", \"connect\": {\"host\": \"127.0.0.1\", \"port\": 5678}, \"pathMappings\": [{\"localRoot\": \"${workspaceFolder}/api/lib\", \"remoteRoot\": \"/opt/lib\"}, {\"localRoot\": \"${workspaceFolder}/api\", \"remoteRoot\": \"/app\"}], \"restart\": true}, \"web\": {\"name\": \"devloop: debug web\", \"type\": \"pwa-node\", \"request\": \"attach\", \"address\": \"127.0.0.1\", \"port\": 9229, \"localRoot\": \"${workspaceFolder}/web\", \"remoteRoot\": \"/srv\", \"restart\": true, \"skipFiles\": [\"<node_internals>/**\"]}, \"job\": {\"name\": \"devloop: debug job\", \"type\": \"go\", \"request\": \"attach\", \"mode\": \"remote\", \"debugAdapter\": \"dlv-dap\", \"host\": \"127.0.0.1\", \"port\": 2345, \"substitutePath\": [{\"from\": \"${workspaceFolder}\", \"to\": \"/src\"}]}}")

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
