"""Words that other tools use for what a config of ours says elsewhere. No torch."""

from dinomx_core.declare.discover import Registry
from dinomx_core.planning.spec import LABELLED, SLOTS

MODEL = '[backbone] name = "hf"'

# What a config says -> what others call it.
OURS = {
    '[run] steps = "100 passes"': "epochs epoch max_epochs num_epochs num_train_epochs n_epochs nb_epochs total_epochs",
    "[run] steps = 10000": "max_steps num_steps total_steps iterations max_iter max_iters n_steps train_steps",
    "[run] batch_size = 64": "batch_size batch bs train_batch_size batch_size_per_gpu batch_size_per_device per_device_train_batch_size",
    "[run] accumulation = 4": "accumulate_grad_batches gradient_accumulation gradient_accumulation_steps grad_accum",
    '[run] precision = "bf16"': "precision amp fp16 bf16 mixed_precision use_fp16 dtype autocast use_amp amp_dtype",
    "[run] seed = 0": "seed random_seed",
    '[run] device = "cpu"': "device accelerator use_cuda",
    '[run] out = "runs"': "output_dir out_dir save_dir log_dir work_dir run_dir checkpoint_dir output_path results_dir",
    '[run] name = "first"': "run_name exp_name experiment experiment_name",
    '[run] start = "runs/earlier"': "resume resume_from resume_from_checkpoint init_from init_checkpoint ckpt_path",
    '[run] recompute = "blocks"': "gradient_checkpointing activation_checkpointing checkpoint_activations",
    "[loader] workers = 4": "num_workers workers dataloader_num_workers",
    "[optimizer] lr = 5e-4": "lr learning_rate base_lr blr",
    "[optimizer] weight_decay = 0.04": "weight_decay wd weight_decay_end",
    '[optimizer] lr = { peak = 5e-4, warmup = "10%" }': "warmup warmup_epochs warmup_steps warmup_ratio scheduler lr_scheduler min_lr",
    "[optimizer] clip = 3.0": "clip_grad grad_clip gradient_clip gradient_clip_val max_grad_norm clip",
    "[optimizer] layer_decay = 0.9": "layerwise_decay layer_wise_decay llrd",
    "[checkpoint] every = 1000": "save_every save_steps saveckp_freq save_interval save_freq checkpoint_every",
    '[data] name = "image-folder"': "dataset datasets train_dataset train_data dataset_path input_dir",
    '[data] path = "images/"': "data_path data_dir image_dir image_folder root train_dir",
    MODEL: "model arch architecture network encoder model_name backbone_name",
    '[backbone] weights = "folder"': "pretrained pretrained_weights pretrained_model pretrained_model_name_or_path",
    "[backbone] width = 384": "embed_dim embedding_dim hidden_size hidden_dim",
    "[backbone] depth = 12": "num_layers n_layers num_hidden_layers n_blocks num_blocks",
    "[backbone] heads = 6": "num_heads n_heads num_attention_heads",
    '[augmentation] name = "multicrop"': "transform transforms augmentations crops",
    "[augmentation.globals] size = 224": "crop_size img_size image_size global_crops_size global_crop_size",
    "[augmentation.locals] count = 8": "local_crops_number n_local_crops num_local_crops n_local_views",
    "[augmentation.locals] size = 96": "local_crops_size local_crop_size",
    'recipe = "NAME", of those that `dinomx plugins` lists': "method algorithm objective ssl_method",
    "[run]": "train training trainer_args training_args",
    '[teacher] name = "ema"': "ema momentum_teacher ema_decay teacher_momentum momentum",
    '[parallelism] name = "ddp"': "ddp gpus num_gpus n_gpus devices world_size nproc_per_node num_nodes nodes distributed deepspeed",
    "[evaluate.knn]": "eval evaluation evaluations val validation eval_every knn",
    "[tracker.wandb]": "wandb logger loggers logging tensorboard mlflow callbacks report_to",
}
WORDS = {word: ours for ours, words in OURS.items() for word in words.split()}
# What a value says -> what others call it.
VALUES = {
    "float32": "fp32 32 32-true f32 full",
    "bf16": "bf16-mixed bfloat16 bf16-true",
    "fp16": "16 16-mixed half float16",
    "cuda": "gpu",
}
NAMED = {word: ours for ours, words in VALUES.items() for word in words.split()}


def instead(word: str, table: tuple[str, ...]) -> str:
    """`; here it is …` for a word in a table that another tool has for something of ours, "" for other words."""
    ours = WORDS.get(word.lower().replace("-", "_"), "")
    header, _, setting = ours.partition("] ")
    if table == (header.strip("["),):
        key = setting.partition(" =")[0]
        return f'; here it is "{key}"' + (', or "weights" for a trained one' if ours == MODEL else "")
    return f"; here it is {ours}" if ours else ""


def meant(value: str, choices: list[str]) -> str:
    """`; did you mean "x"?` for a value that another tool has for one of the choices, "" for other values."""
    ours = NAMED.get(value.lower(), "")
    return f'; did you mean "{ours}"?' if ours in choices else ""


def written(registry: Registry, name: str) -> str:
    """How a config picks an installed component of that name, "" where there is none that a table of its own picks."""
    for table, (kind, _) in LABELLED.items():
        if name in registry.names(kind) and (kind, name) != ("strategy", SLOTS["teacher"][1]):
            return f"[{table}.{name}]"
    for table, (kind, _) in SLOTS.items():
        if name in registry.names(kind):
            return f'[{table}] name = "{name}"'
    return f'recipe = "{name}"' if name in registry.names("recipe") else ""
