"""`python -m gpu_select`: the same as the `gpu-select` command."""

from gpu_select.commands import main

main()
