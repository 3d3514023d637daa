"""Parameter names: the published checkpoints' and ours, and which stage a checkpoint belongs to."""

from collections.abc import Mapping

import torch

from utils.errors import UserError

# A published prefix, and ours. What stands in no line (`backbone.*`, `logit_scale`) has the same name in both.
_OURS = {
    "vis_project.": "visual_projection.",
    "lan_project.": "sentence_projection.",
    "attn_fusion.v_proj1.": "prompt.visual_query.",
    "attn_fusion.v_proj2.": "prompt.visual_key.",
    "attn_fusion.v_proj3.": "prompt.visual_value.",
    "attn_fusion.t_proj1.": "prompt.text_query.",
    "attn_fusion.t_proj2.": "prompt.text_key.",
    "attn_fusion.t_proj3.": "prompt.text_value.",
    "attn_fusion.v_output.": "prompt.visual_output.",
    "attn_fusion.t_output.": "prompt.text_output.",
}
for _i in (2, 3, 4):
    _OURS |= {
        f"attention{_i}.Wk.": f"attention.{_i}.key.",
        f"attention{_i}.Wv.": f"attention.{_i}.value.",
        f"attention{_i}.Wq.": f"attention.{_i}.query.0.",
        f"attention{_i}.ins_q.": f"attention.{_i}.query.1.",
        f"attention{_i}.Ww.": f"attention.{_i}.gather.0.",
        f"attention{_i}.ins_w.": f"attention.{_i}.gather.1.",
        f"attention{_i}.Wm.": f"attention.{_i}.visual.0.",
        f"attention{_i}.Wo.": f"attention.{_i}.output.0.",
    }
for _i in (1, 2, 3, 4):
    _OURS[f"final_seg{_i}.1."] = f"head.{_i - 1}.1."
    for _layer, _name in enumerate(("conv", "bn", "relu")):
        _OURS |= {
            f"reduced_c{_i}.{_name}.": f"reduce.{_i - 1}.{_layer}.",
            f"output{_i}.{_name}.": f"merge.{_i - 1}.{_layer}.",
            f"final_seg{_i}.0.{_name}.": f"head.{_i - 1}.0.{_layer}.",
        }
_PARTS = {
    1: {"visual_projection", "sentence_projection", "prompt"},
    2: {"attention", "reduce", "merge", "head"},
}


def our_name(published: str) -> str:
    """Our name of a parameter of a published checkpoint; a name of ours stays as it is."""
    for theirs, ours in _OURS.items():
        if published.startswith(theirs):
            return ours + published.removeprefix(theirs)
    return published


def stage_of(names: Mapping[str, torch.Tensor], file: str) -> int:
    """The stage whose network has parameters of these (our) names; UserError where it is neither.

    Some parts may be another's, left over from a private version: the stage with the largest share of its parts counts.
    """
    found = {name.partition(".")[0] for name in names}
    if not found & {"prompt", "merge"}:
        hint = "give a checkpoint of train_stage1.py or train_stage2.py"
        raise UserError(f"{file} holds no network of this project; {hint}")
    return max(_PARTS, key=lambda stage: len(_PARTS[stage] & found) / len(_PARTS[stage]))
