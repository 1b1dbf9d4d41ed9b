#!/usr/bin/env python3
"""The reference for networks of a model hub: transformers and timm themselves, on PyTorch, with small random weights.

    python3 -m venv VENV
    VENV/bin/pip install torch==2.5.1 torchvision==0.20.1 transformers==4.57.6 timm==1.0.20 pillow numpy
    VENV/bin/python scripts/reference/vision.py PICTURES > containers/ai-services/vision/tests/data/hub.json

PICTURES is the folder of scripts/test-data.sh. For each family the file has the folder's JSON files, the names and
shapes of its tensors, and what the network says of real pictures: values of the prepared input, classes, embeddings,
scores of labels, captions. The weights are not in it: both sides make the same ones from the tensors' names (`weight`
here, `weights.rs` in tests/it), so a folder of 45 MB costs a few kilobytes.
"""
import json
import math
import sys

import numpy as np
import timm
import timm.data
import torch
import transformers as hf
from PIL import Image
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

PICTURES = ["chelsea.png", "coffee.png", "page.png"]
CLASSES = ["red fox", "tabby cat", "cup", "page", "harbour", "bread, loaf"]
LABELS = ["a cat", "a cup of coffee", "a page of text", "dog", "the moon"]
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
INPUT_STEP = 97  # every so many values of a prepared input are compared
EMBED_VALUES = 64
CAPTION_TOKENS = 12


def random(name, count):
    """Numbers from -1 to 1 that depend on the name and the place: FNV-1a, then splitmix64."""
    seed = 0xCBF29CE484222325
    for byte in name.encode():
        seed = (seed ^ byte) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):
        state = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return (state >> np.uint64(40)).astype(np.float64) / 2**23 - 1.0


def weight(name, shape, head_gain):
    """The values of a tensor. Each side has this rule."""
    count = math.prod(shape)
    last = name.split(".")[-1]
    if last == "logit_scale":
        base, amplitude = 2.5, 0.0
    elif last == "logit_bias":
        base, amplitude = -1.0, 0.0
    elif last == "running_var":
        base, amplitude = 1.0, 0.5
    elif last in ("lambda1", "gamma"):
        base, amplitude = 0.75, 0.25
    elif len(shape) < 2:
        base, amplitude = (1.0, 0.25) if last == "weight" else (0.0, 0.125)
    else:
        fan = math.prod(shape[1:]) if len(shape) != 3 else shape[2]
        head = name.startswith("classifier.") or "text_projection" in name or "visual_projection" in name
        gain = head_gain if head else 1.25
        base, amplitude = 0.0, gain * math.sqrt(3.0 / fan)
    return (base + amplitude * random(name, count)).astype(np.float32).reshape(shape)


def fill(network, head_gain):
    """Gives a network our weights; the names and shapes of its tensors, each tensor once."""
    shapes, seen = {}, set()
    with torch.no_grad():
        for name, tensor in network.state_dict(keep_vars=True).items():
            if not tensor.dtype.is_floating_point or tensor.data_ptr() in seen:
                continue
            seen.add(tensor.data_ptr())
            shapes[name] = list(tensor.shape)
            tensor.copy_(torch.from_numpy(weight(name, shapes[name], head_gain)))
    network.eval()
    return shapes


def floats(tensor, digits=7):
    return [float(f"{value:.{digits}g}") for value in np.asarray(tensor, dtype=np.float64).reshape(-1)]


def unit(vector):
    return floats(vector / vector.norm())[:EMBED_VALUES]


def inputs(pixels):
    """Some values of a prepared input, in the order rows, columns, channels."""
    return floats(pixels[0].permute(1, 2, 0).reshape(-1)[::INPUT_STEP])


def family(name, config, preprocessor, network, see, head_gain=3.0, tokenizer=None):
    shapes = fill(network, head_gain)
    said = {}
    with torch.no_grad():
        for picture in PICTURES:
            image = Image.open(f"{sys.argv[1]}/{picture}").convert("RGB")
            said[picture] = see(network, image)
    for key in ("classify", "zero_shot"):
        lists = [answer[key] for answer in said.values() if key in answer]
        # A comparison of answers that hardly differ would prove little.
        spread = np.ptp(np.array(lists), axis=0).max() if lists else 1.0
        assert spread > 0.02 and not (lists and np.array(lists).max() > 0.999), (name, lists)
    head = {"name": f"tiny-{name}", "architecture": name, "head_gain": head_gain}
    files = {"config": config, "preprocessor": preprocessor}
    if tokenizer is not None:
        files["tokenizer"] = json.loads(tokenizer.to_str())
    return head | files | {"tensors": shapes, "pictures": said}


def config_of(config):
    text = json.loads(config.to_json_string(use_diff=False))
    keys = ("torch_dtype", "dtype", "transformers_version", "_name_or_path")
    wanted = {key: value for key, value in text.items() if key not in keys}
    # The generation settings that every configuration repeats say nothing about the network.
    plain = json.loads(hf.PretrainedConfig().to_json_string(use_diff=False))
    return {key: value for key, value in wanted.items() if key == "id2label" or plain.get(key, "?") != value}


def labelled(**more):
    names = dict(enumerate(CLASSES))
    return dict(num_labels=len(CLASSES), id2label=names, label2id={name: at for at, name in names.items()}, **more)


def classify(processor, backbone):
    def see(network, image):
        pixels = processor(image, return_tensors="pt")["pixel_values"]
        logits, features = backbone(network, pixels)
        return {"input": inputs(pixels), "classify": floats(logits.softmax(-1)), "embed": unit(features[0])}

    return see


def vit():
    config = hf.ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
                          image_size=32, patch_size=8, **labelled())
    processor = hf.ViTImageProcessor(size={"height": 32, "width": 32})

    def backbone(network, pixels):
        return network(pixels).logits, network.vit(pixels).last_hidden_state[:, 0]

    network = hf.ViTForImageClassification(config)
    return family("vit", config_of(config), processor.to_dict(), network, classify(processor, backbone))


def dinov2():
    # Trained at 5 x 5 patches, used at 4 x 4: position embeddings are interpolated.
    config = hf.Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=70, patch_size=14,
                             **labelled())
    processor = hf.BitImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 56, "width": 56}, resample=3,
                                     image_mean=MEAN, image_std=STD)

    def backbone(network, pixels):
        return network(pixels).logits, network.dinov2(pixels).pooler_output

    network = hf.Dinov2ForImageClassification(config)
    return family("dinov2", config_of(config), processor.to_dict(), network, classify(processor, backbone))


def resnet():
    config = hf.ResNetConfig(embedding_size=64, hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2],
                             layer_type="basic", **labelled())
    processor = hf.ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.875, resample=3, image_mean=MEAN,
                                          image_std=STD)

    def backbone(network, pixels):
        return network(pixels).logits, network.resnet(pixels).pooler_output[:, :, 0, 0]

    network = hf.ResNetForImageClassification(config)
    see = classify(processor, backbone)
    return family("resnet", config_of(config), processor.to_dict(), network, see, head_gain=0.1)


def mobilenetv4():
    network = timm.create_model("mobilenetv4_conv_small", pretrained=False, num_classes=len(CLASSES))
    settings = {"input_size": [3, 64, 64], "interpolation": "bicubic", "crop_pct": 0.875, "crop_mode": "center",
                "mean": MEAN, "std": STD}
    transform = timm.data.create_transform(**{**settings, "input_size": (3, 64, 64)})
    config = {"architecture": "mobilenetv4_conv_small", "num_classes": len(CLASSES), "num_features": 1280,
              "pretrained_cfg": settings, "id2label": {str(at): name for at, name in enumerate(CLASSES)}}

    def see(network, image):
        pixels = transform(image)[None]
        features = network.forward_features(pixels).mean((2, 3))
        probabilities = network(pixels).softmax(-1)
        return {"input": inputs(pixels), "classify": floats(probabilities), "embed": unit(features[0])}

    return family("mobilenetv4", config, None, network, see, head_gain=0.15)


def letters_tokenizer(specials, last, **options):
    """Letters are tokens, and some pairs of them: small, and of the real one's kind."""
    letters = list("abcdefghijklmnopqrstuvwxyz0123456789<|>")
    merges = [("a", "t</w>"), ("c", "at</w>"), ("o", "f</w>"), ("c", "u"), ("cu", "p</w>"), ("t", "h"), ("th", "e</w>")]
    words = specials + letters + [letter + "</w>" for letter in letters] + ["".join(pair) for pair in merges] + last
    model = models.BPE({word: at for at, word in enumerate(words)}, merges, end_of_word_suffix="</w>", **options)
    return Tokenizer(model), words


def score_labels(processor, tokenizer, scores, fill_to=None):
    def see(network, image):
        pixels = processor(image, return_tensors="pt")["pixel_values"]
        found = []
        for label in LABELS:
            ids = tokenizer.encode(label).ids
            if fill_to:
                length, pad = fill_to
                ids = ids + [pad] * (length - len(ids))
            out = network(input_ids=torch.tensor([ids]), pixel_values=pixels)
            found.append(out.logits_per_image[0, 0])
        image_features = network.get_image_features(pixel_values=pixels)[0]
        return {"input": inputs(pixels), "zero_shot": floats(scores(torch.stack(found))),
                "embed": unit(image_features)}

    return see


def clip():
    tokenizer, words = letters_tokenizer([], ["<|startoftext|>", "<|endoftext|>"], unk_token="<|endoftext|>")
    tokenizer.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "),
                                                 normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), "removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ])
    begin, end = words.index("<|startoftext|>"), words.index("<|endoftext|>")
    tokenizer.post_processor = processors.RobertaProcessing(("<|endoftext|>", end), ("<|startoftext|>", begin),
                                                            trim_offsets=False, add_prefix_space=False)
    text = dict(vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                num_attention_heads=4, max_position_embeddings=24, eos_token_id=end, bos_token_id=begin)
    vision = dict(hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=32,
                  patch_size=8)
    config = hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    processor = hf.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    see = score_labels(processor, tokenizer, lambda logits: logits.softmax(-1))
    files = {"model_type": "clip", "projection_dim": 24, "text_config": text, "vision_config": vision}
    return family("clip", files, processor.to_dict(), hf.CLIPModel(config), see, tokenizer=tokenizer)


def siglip():
    tokenizer, words = letters_tokenizer(["<unk>", "</s>"], [], unk_token="<unk>")
    tokenizer.add_special_tokens(["<unk>", "</s>"])
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    text = dict(vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                num_attention_heads=4, max_position_embeddings=20, pad_token_id=1)
    vision = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=32,
                  patch_size=8)
    config = hf.SiglipConfig(text_config=text, vision_config=vision)
    processor = hf.SiglipImageProcessor(size={"height": 32, "width": 32})
    see = score_labels(processor, tokenizer, torch.sigmoid, fill_to=(20, 1))
    files = {"model_type": "siglip", "text_config": text, "vision_config": vision}
    return family("siglip", files, processor.to_dict(), hf.SiglipModel(config), see, tokenizer=tokenizer)


def blip():
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[DEC]", "a", "the", "cat", "cup", "page", "of", "with", "on", "coffee",
             "text", "table", "is", "sitting", "##s", "##ing", "look", "red", "green", "grass", "two", "and", "at",
             "eye", "close", "up", "printed", "white"]
    tokenizer = Tokenizer(models.WordPiece({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.add_special_tokens(words[:5])
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    text = dict(vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                num_attention_heads=4, max_position_embeddings=24, bos_token_id=4, eos_token_id=3, sep_token_id=3,
                pad_token_id=0, encoder_hidden_size=48, hidden_act="gelu")
    vision = dict(hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=32,
                  patch_size=8)
    config = hf.BlipConfig(text_config=text, vision_config=vision)
    processor = hf.BlipImageProcessor(size={"height": 32, "width": 32})

    def see(network, image):
        pixels = processor(image, return_tensors="pt")["pixel_values"]
        states = network.vision_model(pixels).last_hidden_state
        ids = [4]
        # Without any memory of earlier steps, unlike the service.
        while len(ids) <= CAPTION_TOKENS:
            logits = network.text_decoder(input_ids=torch.tensor([ids]), encoder_hidden_states=states,
                                          is_decoder=True).logits[0, -1]
            best = logits.topk(2).values
            assert best[0] - best[1] > 1e-3, "too near to be compared"
            if int(logits.argmax()) == 3:
                break
            ids.append(int(logits.argmax()))
        return {"input": inputs(pixels), "caption": tokenizer.decode(ids[1:], skip_special_tokens=True).strip()}

    files = {"model_type": "blip", "text_config": text, "vision_config": vision}
    network = hf.BlipForConditionalGeneration(config)
    return family("blip", files, processor.to_dict(), network, see, tokenizer=tokenizer)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    families = [vit(), dinov2(), resnet(), mobilenetv4(), clip(), siglip(), blip()]
    out = {"labels": LABELS, "classes": CLASSES, "input_step": INPUT_STEP, "caption_tokens": CAPTION_TOKENS,
           "families": families}
    json.dump(out, sys.stdout, separators=(",", ":"))


main()
