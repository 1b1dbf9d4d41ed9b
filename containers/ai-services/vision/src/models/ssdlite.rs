//! SSDLite on MobileNetV2 (TensorFlow's object-detection models): persons and where they are.
//!
//! Six maps of 19 x 19 down to 1 x 1 cells; for each of 3 or 6 anchor boxes of a cell, how far the
//! box is from its anchor and how likely it holds a person. The input is 300 x 300 RGB from -1 to
//! 1, resized without regard to proportions, as the model was trained.

use aisemble_weights::kernels::Pool;

use super::boxes::{Candidate, Rect, suppress};
use super::inverted_residual::InvertedResidual;
use super::prepare;
use crate::compute::{Activation, Conv, ConvShape, Map, Padding, sigmoid};
use crate::picture::{Picture, resize_linear};
use crate::weights_file::{BatchNorm, Tensors, WeightsError};

/// Pixels of a side of the input.
const SIDE: usize = 300;
/// What is found.
pub const LABELS: [&str; 1] = ["person"];
/// Least score when the caller names none.
pub const SCORE_MIN: f32 = 0.5;
/// Overlap when the caller names none.
pub const NMS_IOU: f32 = 0.6;
/// Things of a picture that are told at most.
const DETECTIONS_MAX: usize = 100;
/// Background and person.
const CLASSES: usize = 2;
/// Of batch normalisation.
const EPSILON: f32 = 1e-3;
/// Repeats, stride of the first, expansion, output channels.
const STAGES: [(usize, usize, usize, usize); 7] = [
    (1, 1, 1, 16),
    (2, 2, 6, 24),
    (3, 2, 6, 32),
    (4, 2, 6, 64),
    (3, 1, 6, 96),
    (3, 2, 6, 160),
    (1, 1, 6, 320),
];
/// The block whose expansion is the first map.
const FIRST_MAP: usize = 13;
/// Narrow and wide channels of the layers behind the backbone.
const EXTRA: [(usize, usize); 4] = [(256, 512), (128, 256), (128, 256), (64, 128)];
/// Anchors of a map: scale and proportion (width to height) of each.
const ANCHORS: [&[(f32, f32)]; 6] = [
    &[(0.1, 1.0), (0.2, 2.0), (0.2, 0.5)],
    &[(0.35, 1.0), (0.35, 2.0), (0.35, 0.5), (0.35, 3.0), (0.35, 0.3333), (0.418_33, 1.0)],
    &[(0.5, 1.0), (0.5, 2.0), (0.5, 0.5), (0.5, 3.0), (0.5, 0.3333), (0.570_087_73, 1.0)],
    &[(0.65, 1.0), (0.65, 2.0), (0.65, 0.5), (0.65, 3.0), (0.65, 0.3333), (0.721_110_2, 1.0)],
    &[(0.8, 1.0), (0.8, 2.0), (0.8, 0.5), (0.8, 3.0), (0.8, 0.3333), (0.871_779_8, 1.0)],
    &[(0.95, 1.0), (0.95, 2.0), (0.95, 0.5), (0.95, 3.0), (0.95, 0.3333), (0.974_679_4, 1.0)],
];

/// The network.
#[derive(Debug)]
pub struct SsdLite {
    stem: Conv,
    blocks: Vec<InvertedResidual>,
    last: Conv,
    extra: Vec<[Conv; 3]>,
    heads: Vec<Head>,
}

/// What one map says of its anchors.
#[derive(Debug)]
struct Head {
    boxes: [Conv; 2],
    classes: [Conv; 2],
}

/// A person, in shares of the picture's width and height.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FoundThing {
    /// Which of [`LABELS`].
    pub label: usize,
    /// 0 to 1.
    pub score: f32,
    /// Where, 0 to 1.
    pub bounds: Rect,
}

/// Loads convolutions of one file, all of which have the same padding.
struct Loader<'a>(&'a Tensors<'a>);

impl Loader<'_> {
    /// A convolution with batch normalisation and ReLU6. `scope` holds the normalisation, `weights`
    /// is the tensor under it.
    fn normed(
        &self,
        shape: ConvShape,
        scope: &str,
        activation: Activation,
    ) -> Result<Conv, WeightsError> {
        let weights = if shape.depthwise { "depthwise_weights" } else { "weights" };
        let [scale, shift, mean, variance] = ["gamma", "beta", "moving_mean", "moving_variance"]
            .map(|of| format!("{scope}/BatchNorm/{of}"));
        let norm = BatchNorm { names: [&*scale, &*shift, &*mean, &*variance], epsilon: EPSILON };
        let shape = shape.padding(Padding::Same);
        let weights = format!("{scope}/{weights}");
        self.0.conv_tensorflow(shape, &weights, "", Some(norm), activation)
    }

    fn backbone(&self, shape: ConvShape, name: &str) -> Result<Conv, WeightsError> {
        let scope = format!("FeatureExtractor/MobilenetV2/{name}");
        let linear = name.ends_with("/project");
        let activation = if linear { Activation::None } else { Activation::Relu6 };
        self.normed(shape, &scope, activation)
    }

    fn blocks(&self) -> Result<Vec<InvertedResidual>, WeightsError> {
        let (mut blocks, mut input) = (Vec::new(), 32);
        for (repeats, stride, expansion, output) in STAGES {
            for repeat in 0..repeats {
                let number = match blocks.len() {
                    0 => String::new(),
                    number => format!("_{number}"),
                };
                let name = |of: &str| format!("expanded_conv{number}/{of}");
                let inner = input * expansion;
                let expand = (expansion > 1)
                    .then(|| self.backbone(ConvShape::pointwise(input, inner), &name("expand")));
                let stride = if repeat == 0 { stride } else { 1 };
                let depthwise = ConvShape::depthwise(inner, 3).stride(stride);
                blocks.push(InvertedResidual {
                    expand: expand.transpose()?,
                    depthwise: self.backbone(depthwise, &name("depthwise"))?,
                    project: self
                        .backbone(ConvShape::pointwise(inner, output), &name("project"))?,
                });
                input = output;
            }
        }
        Ok(blocks)
    }

    fn extra(&self, index: usize, input: usize) -> Result<[Conv; 3], WeightsError> {
        let (narrow, wide) = EXTRA[index];
        let number = index + 2;
        let spatial = format!("layer_19_2_Conv2d_{number}_3x3_s2_{wide}");
        Ok([
            self.backbone(
                ConvShape::pointwise(input, narrow),
                &format!("layer_19_1_Conv2d_{number}_1x1_{narrow}"),
            )?,
            self.backbone(
                ConvShape::depthwise(narrow, 3).stride(2),
                &format!("{spatial}_depthwise"),
            )?,
            self.backbone(ConvShape::pointwise(narrow, wide), &spatial)?,
        ])
    }

    fn head(&self, index: usize, input: usize) -> Result<Head, WeightsError> {
        let anchors = ANCHORS[index].len();
        let pair = |of: &str, outputs: usize| -> Result<[Conv; 2], WeightsError> {
            let scope = format!("BoxPredictor_{index}/{of}");
            let shape = ConvShape::depthwise(input, 3);
            let depthwise = self.normed(shape, &format!("{scope}_depthwise"), Activation::Relu6)?;
            let (weights, bias) = (format!("{scope}/weights"), format!("{scope}/biases"));
            let shape = ConvShape::pointwise(input, outputs);
            let point = self.0.conv_tensorflow(shape, &weights, &bias, None, Activation::None)?;
            Ok([depthwise, point])
        };
        Ok(Head {
            boxes: pair("BoxEncodingPredictor", anchors * 4)?,
            classes: pair("ClassPredictor", anchors * CLASSES)?,
        })
    }
}

impl SsdLite {
    /// Takes the weights out of a file.
    ///
    /// # Errors
    /// [`WeightsError`] naming the tensor.
    pub fn load(tensors: &Tensors<'_>) -> Result<Self, WeightsError> {
        let loader = Loader(tensors);
        let stem = loader.backbone(ConvShape::square(3, 32, 3).stride(2), "Conv")?;
        let blocks = loader.blocks()?;
        let last = loader.backbone(ConvShape::pointwise(320, 1280), "Conv_1")?;
        let (mut extra, mut inputs) = (Vec::new(), vec![576, 1280]);
        for (index, (_, wide)) in EXTRA.iter().enumerate() {
            extra.push(loader.extra(index, inputs[index + 1])?);
            inputs.push(*wide);
        }
        let heads = inputs.iter().enumerate().map(|(index, input)| loader.head(index, *input));
        Ok(Self { stem, blocks, last, extra, heads: heads.collect::<Result<_, _>>()? })
    }

    /// The picture as the network takes it: 1 x 300 x 300 x 3.
    #[must_use]
    pub fn prepare(picture: &Picture) -> Map {
        let resized = resize_linear(picture, SIDE, SIDE);
        prepare::normalize(&resized, [127.5; 3], [127.5; 3])
    }

    /// Six maps of box encodings, then six of class scores.
    #[must_use]
    pub fn forward(&self, pool: &Pool, x: &Map) -> Vec<Map> {
        let mut x = self.stem.forward(pool, x, None);
        let mut maps = Vec::with_capacity(ANCHORS.len());
        for (index, block) in self.blocks.iter().enumerate() {
            if index == FIRST_MAP {
                let (out, expanded) = block.forward_tapped(pool, &x);
                maps.extend(expanded);
                x = out;
            } else {
                x = block.forward(pool, &x);
            }
        }
        maps.push(self.last.forward(pool, &x, None));
        for [narrow, spatial, wide] in &self.extra {
            let Some(before) = maps.last() else { break };
            let inner = spatial.forward(pool, &narrow.forward(pool, before, None), None);
            maps.push(wide.forward(pool, &inner, None));
        }
        let run = |[depthwise, point]: &[Conv; 2], map: &Map| {
            point.forward(pool, &depthwise.forward(pool, map, None), None)
        };
        let boxes = self.heads.iter().zip(&maps).map(|(head, map)| run(&head.boxes, map));
        let classes = self.heads.iter().zip(&maps).map(|(head, map)| run(&head.classes, map));
        boxes.chain(classes).collect()
    }

    /// What was found in one picture, best first.
    #[must_use]
    pub fn interpret(outputs: &[Map], score_min: f32, nms_iou: f32) -> Vec<FoundThing> {
        let (boxes, classes) = outputs.split_at(outputs.len() / 2);
        let mut candidates = Vec::new();
        for ((boxes, classes), anchors) in boxes.iter().zip(classes).zip(ANCHORS) {
            let rows = boxes.data.chunks_exact(4).zip(classes.data.chunks_exact(CLASSES));
            for (index, (code, scores)) in rows.enumerate() {
                let score = sigmoid(scores[1]);
                if score <= score_min || !score.is_finite() {
                    continue;
                }
                let (cell, anchor) = (index / anchors.len(), anchors[index % anchors.len()]);
                let center = |at: usize, of: usize| (at as f32 + 0.5) / of as f32;
                let at = (center(cell % boxes.w, boxes.w), center(cell / boxes.w, boxes.h));
                let bounds = decode(code, at, anchor);
                if bounds.area() > 0.0 {
                    candidates.push(Candidate { score, bounds, extra: () });
                }
            }
        }
        let thing = |found: Candidate<()>| FoundThing {
            label: 0,
            score: found.score,
            bounds: found.bounds,
        };
        suppress(candidates, nms_iou, DETECTIONS_MAX).into_iter().map(thing).collect()
    }

    pub(super) fn convolutions(&self) -> impl Iterator<Item = &Conv> {
        let blocks = self.blocks.iter().flat_map(InvertedResidual::convolutions);
        let heads = self.heads.iter().flat_map(|head| head.boxes.iter().chain(&head.classes));
        [&self.stem, &self.last]
            .into_iter()
            .chain(blocks)
            .chain(self.extra.iter().flatten())
            .chain(heads)
    }
}

/// A box from its encoding: down, across, height, width against an anchor, cut to the picture.
fn decode(code: &[f32], (x, y): (f32, f32), (scale, proportion): (f32, f32)) -> Rect {
    let (tall, wide) = (scale / proportion.sqrt(), scale * proportion.sqrt());
    let (center_y, center_x) = (code[0] / 10.0 * tall + y, code[1] / 10.0 * wide + x);
    let (half_tall, half_wide) =
        ((code[2] / 5.0).exp() * tall / 2.0, (code[3] / 5.0).exp() * wide / 2.0);
    Rect {
        left: (center_x - half_wide).clamp(0.0, 1.0),
        top: (center_y - half_tall).clamp(0.0, 1.0),
        right: (center_x + half_wide).clamp(0.0, 1.0),
        bottom: (center_y + half_tall).clamp(0.0, 1.0),
    }
}
