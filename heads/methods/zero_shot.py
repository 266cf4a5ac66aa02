"""Zero-shot CLIP: the class texts are the classifier.

    logits = s x T^T + b                                                   (1)
    T_c = normalise(mean_j e_cj)      name, template, description, cupl    (2)
    T_c = mean_j e_cj                 dclip, waffle                        (3)

    x [n d] query rows, unit      e_cj the texts j of class c, unit
    s logit scale                 b logit bias, 0 for softmax-trained models

By (3) a score is the mean of the cosines with the texts, which favours classes whose texts agree.

Reference: Radford et al., Learning Transferable Visual Models From Natural Language Supervision,
ICML 2021, arXiv:2103.00020, section 3.1; (2) as in Tip-Adapter's released classifier. cupl: Pratt
et al., What Does a Platypus Look Like?, ICCV 2023, arXiv:2209.03320. dclip: Menon and Vondrick,
Visual Classification via Description from Large Language Models, ICLR 2023, arXiv:2210.07183.
waffle: Roth et al., Waffling Around for Performance, ICCV 2023, arXiv:2306.07282.
Source: paper and released code; dclip and waffle: WaffleCLIP's released code @9ae608a, cupl: from
memory of its released code.
Differs from the paper: nothing in (1) to (3); the random texts in `featcache.text.waffle`.
"""

from heads.class_texts import text_tensors, zero_shot_logits
from heads.contract.linear import of_anchors
from heads.contract.method import Method, Need
from heads.contract.rows import Rows, TaskView, Tensors, of_texts
from heads.contract.settings import Nothing, WithText


def prepare(task: TaskView, config: WithText, hyper: Nothing) -> tuple[Tensors, Tensors]:
    """Take the class texts; equations (2) and (3)."""
    fixed = text_tensors(task, config.text, method=METHOD.name)
    assert task.text is not None
    return {}, fixed | {"anchors": task.text.classifier(config.text).to(task.support.x)}


def terms(params: Tensors, fixed: Tensors, rows: Rows, config: WithText, hyper: Nothing) -> Tensors:
    """Equation (1)."""
    return {"logits": zero_shot_logits(fixed, rows.x)}


METHOD = Method(
    name="zero-shot",
    summary="Class texts as the classifier; no shots.",
    source="paper and released code: Radford et al. 2021, arXiv:2103.00020",
    needs=lambda config: frozenset({Need(role="query")}),
    prepare=prepare,
    terms=terms,
    rebind=lambda params, fixed, text, config: prepare(
        of_texts(text, fixed["anchors"]), config, Nothing()
    ),  # nothing was learned
    linear=lambda params, fixed, config, hyper: of_anchors(fixed, fixed["anchors"]),
)
