vim.opt.shiftwidth = 2 -- ours
-- devloop: begin (written by `devloop editor nvim`)
vim.opt.runtimepath:append(vim.fn.getcwd() .. "/.nvim")
vim.cmd("runtime plugin/devloop.lua")
-- devloop: end
vim.g.shop = true
