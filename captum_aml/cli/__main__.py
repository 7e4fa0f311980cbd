"""``python -m captum_aml.cli``, as ``accelerate launch -m`` starts it."""

from captum_aml.cli.main import main

if __name__ == "__main__":
    main()
