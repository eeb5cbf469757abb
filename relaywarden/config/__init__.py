"""config - what the operator wrote, validated: the table of settings, the loader, the deeper checks of `relaywarden check`."""
