" Written by `devloop editor nvim`: `:compiler devloop`, then `:make`.
if exists("current_compiler")
  finish
endif
let current_compiler = "devloop"
let s:cpo_save = &cpo
set cpo&vim
CompilerSet makeprg=devloop\ check
CompilerSet errorformat=%Ddevloop:\ in\ <%f>,%f:%l:%c:\ %trror%\\%%([%\\)%\\@=%m,%f:%l:%c:\ %tarning%\\%%([%\\)%\\@=%m,%f:%l:%c:\ %tnfo%\\%%([%\\)%\\@=%m,%-G%.%#
let &cpo = s:cpo_save
unlet s:cpo_save
