"""The collection that every command joins."""

import tyro

DESCRIPTION = "What written reasoning tokens buy a fixed-depth transformer, and by which mechanism."

app = tyro.extras.SubcommandApp()
