vim.opt.shiftwidth = 2 -- ours
-- devloop: begin (written by an older one)
vim.cmd("source .nvim/devloop.vim")
-- devloop: end
vim.g.shop = true
