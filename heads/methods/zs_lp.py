"""ZS-LP: a linear probe by cosine that starts at the class texts.

    logits = s x normalise(W)^T + b                                        (1)
    loss   = CE(logits, y) over W                                          (2)

    x [n d] rows, unit            W [c d] class weights, trained, start at the texts T [c d],
    s, b logit scale and bias     un-normalised: their length divides the steps of their direction

Nothing is chosen on validation, and the last step is kept.

Reference: Silva-Rodriguez et al., A Closer Look at the Few-Shot Adaptation of Large
Vision-Language Models, CVPR 2024, arXiv:2312.12730, section 4.
Source: released code @2b18ea4: SGD 0.1 with momentum 0.9 (Dassl's default), no weight decay, batch
256, 300 epochs, cosine by epochs after one at 1e-5; T is the mean of un-normalised text features.
All cached views of all shots are shuffled together, and an epoch has as many batches as one pass
over the images.
Differs from the paper: its body was not read. From the released code: it caches 20 random crops of
8 to 100 % of the area; here those views stand in that the cache has, and without any the clean
images. Imported texts whose length is lost are taken `text_length` times as long.
"""

from heads import cosine_probe
from heads.class_texts import note_text_factor
from heads.contract.method import Method, shots_with_views
from heads.contract.rows import TaskView, Tensors
from heads.cosine_probe import Config, Hyper, terms


def prepare(task: TaskView, config: Config, hyper: Hyper) -> tuple[Tensors, Tensors]:
    """Start at the texts."""
    return cosine_probe.at_texts(task, config, hyper, method=METHOD.name)


METHOD = Method(
    name="zs-lp",
    summary="Cosine linear probe that starts at the class texts; chooses nothing on validation.",
    source="released code: Silva-Rodriguez et al. 2024, arXiv:2312.12730",
    needs=shots_with_views,
    stages=cosine_probe.train_weight,
    prepare=prepare,
    terms=terms,
    notes=note_text_factor,
    training_only=("base", "text_factor"),
    linear=cosine_probe.linear,
)
