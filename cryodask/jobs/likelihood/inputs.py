"""What a configuration, or a call from Python, names: checked and opened."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryodask.io.particle_stack import ParticleStack, particles_from_array
from cryodask.jobs.likelihood.images import load_images, settle_images
from cryodask.jobs.likelihood.parameters import LikelihoodParameters
from cryodask.jobs.likelihood.planning import LikelihoodInputs, check_images
from cryodask.jobs.likelihood.structures import load_structures


def inputs_of_python(
    images: Any,
    structures: Any,
    *,
    pixel_size: float | None = None,
    optics: Any = None,
    compat: str | None = None,
    settings: Mapping[str, Any],
) -> LikelihoodInputs:
    """Return the inputs of a call with the parameters of `cryodask.likelihood`."""
    content = nested_settings(settings)
    content["structures"] = structures
    block = content.setdefault("image_options", {})
    stack = None
    if isinstance(images, str | Path) or _are_paths(images):
        paths = [images] if isinstance(images, str | Path) else images
        content["images"] = [str(path) for path in paths]
        block |= {} if pixel_size is None else {"pixel_size": pixel_size}
        block |= {} if optics is None else {"optics": optics}
    else:
        content["images"] = "array"
        columns = None if isinstance(optics, str) else optics
        block["optics"] = "none" if isinstance(optics, str) else "file"
        stack = particles_from_array(images, pixel_size=pixel_size, optics=columns)
    return load_inputs(LikelihoodParameters.from_mapping(content, compat=compat), stack)


def _are_paths(images: Any) -> bool:
    """Say whether images are given as a list of paths."""
    return isinstance(images, list | tuple) and all(isinstance(each, str | Path) for each in images)


def load_inputs(parameters: LikelihoodParameters, stack: ParticleStack | None = None) -> LikelihoodInputs:
    """Check and open everything that a configuration names.

    Raises
    ------
    InputError
        A wrong file or value.
    """
    found, notices = load_images(parameters) if stack is None else settle_images(stack, parameters)
    structures, more = load_structures(parameters)
    inputs = LikelihoodInputs(parameters, found, tuple(structures), (*notices, *more))
    check_images(inputs)
    return inputs


def nested_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Put keys of the configuration's blocks into their blocks."""
    content: dict[str, Any] = {}
    fields = LikelihoodParameters.model_fields
    blocks = {
        name: set(getattr(field.annotation, "model_fields", {}))
        for name, field in fields.items()
        if name in ("grid", "atoms", "likelihood", "image_options")
    }
    for key, value in settings.items():
        home = next((name for name, keys in blocks.items() if key in keys and key not in fields), None)
        if home is None:
            content[key] = dict(value) if isinstance(value, Mapping) else value
        else:
            content.setdefault(home, {})[key] = value
    return content
