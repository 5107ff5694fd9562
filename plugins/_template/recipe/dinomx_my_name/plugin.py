"""Declarations. No torch here: the plan and `dinomx --help` read them."""

from dinomx_core import Recipe, hookimpl

DINOMX_API = 1


@hookimpl
def dinomx_recipes():
    yield Recipe("my-name", "dinomx_my_name:my-name.toml", "DINO with a narrow network and a quick teacher")
