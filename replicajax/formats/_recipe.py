"""A plan in the words of those who quantize: which of their settings for which tensor.

What they write has scales by their own rules, which differ from ours in how a scale is rounded, not in what it is.
"""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from replicajax.formats._menu import Plan
from replicajax.formats._standard import StandardFormat

_GROUPS = re.compile(r"INT(\d)_G(\d+)(_ZERO)?")
_PACKED = ("4", "8")
"""Bits of integers that compressed-tensors packs."""
_UNTOUCHED = ("BF16", "F16")


def recipe(plan: Plan, runtime: str = "replicajax") -> str:
    """Text for a runtime.

    "replicajax" is JSON of tensor to format; "llama" the tensor-type file of llama-quantize, a regular expression a line;
    "qwix" JSON of rules, each the arguments of a `QuantizationRule`; "compressed-tensors" the `quantization_config` of a
    model's config.json.

    Raises:
      ValueError: another runtime, or formats in the plan that it lacks, which the message has.
    """
    lacking = sorted({each.name for each in plan.formats} - {each.name for each in served(plan.formats, runtime)})
    if lacking:
        raise ValueError(f"a recipe for {runtime} must be of formats that it has, got {', '.join(lacking)}")
    return _RUNTIMES[runtime][1](plan)


def served(formats: Sequence[StandardFormat], runtime: str) -> tuple[StandardFormat, ...]:
    """Those of some formats that a runtime has.

    Raises:
      ValueError: another runtime.
    """
    if runtime not in _RUNTIMES:
        raise ValueError(f"recipe must be for one of {', '.join(_RUNTIMES)}, got {runtime!r}")
    return tuple(each for each in formats if _RUNTIMES[runtime][0](each))


def _plain(plan: Plan) -> str:
    formats = {tensor.name: fmt.name for tensor, fmt in zip(plan.tensors, plan.formats, strict=True)}
    return _json({"formats": formats, "kept": [t.name for t in plan.kept], "mean_bits": plan.mean_bits})


def _llama(plan: Plan) -> str:
    pairs = zip(plan.tensors, plan.formats, strict=True)
    return "".join(f"^{re.escape(tensor.name)}$={fmt.name.lower()}\n" for tensor, fmt in pairs)


def _qwix(plan: Plan) -> str:
    return _json([{"module_path": "|".join(paths), **rule} for rule, paths in _by_setting(plan, _rule, "/")])


def _rule(fmt: StandardFormat) -> dict[str, Any] | None:
    found = _GROUPS.fullmatch(fmt.name)
    if found:
        kind = "minmax" if found[3] else "absmax"
        return {
            "weight_qtype": f"int{found[1]}",
            "tile_size": int(found[2]),
            "weight_calibration_method": kind,
        }
    of_channels = {"INT8_CHANNEL": "int8", "FP8_E4M3_CHANNEL": "float8_e4m3fn", "FP8_E5M2_CHANNEL": "float8_e5m2"}
    if fmt.name in of_channels:
        return {"weight_qtype": of_channels[fmt.name]}
    return {"weight_qtype": "nf4", "tile_size": fmt.block} if fmt.name == "NF4" else None


def _compressed(plan: Plan) -> str:
    groups = [
        {"targets": [f"re:^(?:{path})$" for path in paths], "weights": scheme}
        for scheme, paths in _by_setting(plan, _scheme, ".")
    ]
    pairs = zip(plan.tensors, plan.formats, strict=True)
    return _json(
        {
            "quantization_config": {
                "quant_method": "compressed-tensors",
                "config_groups": {f"group_{i}": group for i, group in enumerate(groups)},
                "ignore": [_module(tensor.name, ".") for tensor, fmt in pairs if fmt.name in _UNTOUCHED],
            }
        }
    )


def _scheme(fmt: StandardFormat) -> dict[str, Any] | None:
    found = _GROUPS.fullmatch(fmt.name)
    if found and found[1] in _PACKED:
        symmetric = not found[3]
        return {
            "num_bits": int(found[1]),
            "type": "int",
            "symmetric": symmetric,
            "strategy": "group",
            "group_size": int(found[2]),
        }
    whole = {
        "INT8_CHANNEL": ("int", "channel"),
        "FP8_E4M3": ("float", "tensor"),
        "FP8_E4M3_CHANNEL": ("float", "channel"),
    }
    if fmt.name in whole:
        kind, strategy = whole[fmt.name]
        return {"num_bits": 8, "type": kind, "symmetric": True, "strategy": strategy}
    if fmt.name == "NVFP4":
        return {"num_bits": 4, "type": "float", "symmetric": True, "strategy": "tensor_group", "group_size": fmt.block}
    return None


def _by_setting(
    plan: Plan, setting: Callable[[StandardFormat], dict[str, Any] | None], between: str
) -> list[tuple[dict[str, Any], list[str]]]:
    """Every setting with the modules that have it, as regular expressions; those that stay as they are have none."""
    found: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for tensor, fmt in zip(plan.tensors, plan.formats, strict=True):
        made = setting(fmt)
        if made is not None:
            found.setdefault(fmt.name, (made, []))[1].append(re.escape(_module(tensor.name, between)))
    return list(found.values())


def _module(name: str, between: str) -> str:
    """What a tensor belongs to: its name but for the last part."""
    return between.join(name.split(".")[:-1] or [name])


def _json(record: Any) -> str:
    return json.dumps(record, indent=1) + "\n"


_Runtime = tuple[Callable[[StandardFormat], bool], Callable[[Plan], str]]
_RUNTIMES: dict[str, _Runtime] = {
    "replicajax": (lambda fmt: True, _plain),
    "llama": (lambda fmt: fmt.ggml, _llama),
    "qwix": (lambda fmt: fmt.name in _UNTOUCHED or _rule(fmt) is not None, _qwix),
    "compressed-tensors": (lambda fmt: fmt.name in _UNTOUCHED or _scheme(fmt) is not None, _compressed),
}
RUNTIMES = tuple(_RUNTIMES)
