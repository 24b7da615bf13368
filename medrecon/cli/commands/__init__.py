"""The commands, found by themselves: a module with an `app`, named as the command, here or from outside."""
