"""The subcommands of `sam2s`, a module each; cli.Command says what a module offers."""
