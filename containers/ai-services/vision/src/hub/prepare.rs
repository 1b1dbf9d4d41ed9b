//! From a picture to a network's input as the folder says: `preprocessor_config.json` of
//! transformers, or `pretrained_cfg` in the `config.json` of timm. Resizing gives Pillow's bytes;
//! what is done to values is done in the order and precision of the original.

use serde::Deserialize;

use super::config::{ConfigError, SIDE_MAX, parse};
use super::network::PREPROCESSOR;
use crate::compute::Map;
use crate::models::middle;
use crate::picture::{Filter, Picture, crop, resize_antialiased};

/// Pillow's numbers of filters.
const BILINEAR: u8 = 2;
const BICUBIC: u8 = 3;
/// Side from which ConvNext's preprocessing, which ResNet has, cuts nothing off.
const CONVNEXT_WHOLE_SIDE: usize = 384;

/// Why a folder does not say how pictures are to be prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The file cannot be read.
    #[error("{PREPROCESSOR} cannot be used")]
    File {
        /// Why.
        #[from]
        source: ConfigError,
    },
    /// A key is missing.
    #[error("{PREPROCESSOR} has no {key}")]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// It wants what is not done here.
    #[error("{PREPROCESSOR} says {key} {value}; {reason}")]
    Unsupported {
        /// The key.
        key: &'static str,
        /// What it says.
        value: String,
        /// What is done.
        reason: &'static str,
    },
}

/// How pictures are prepared.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepare {
    resize: Resize,
    filter: Filter,
    /// Side of the square that is cut out of the middle.
    crop: Option<Crop>,
    /// Of each value of each channel.
    table: Box<[[f32; 3]; 256]>,
    side: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resize {
    /// To a square, whatever the proportions.
    Square(usize),
    /// The shorter side to this, the proportions kept.
    Shorter(usize),
}

/// A middle that lies between two pixels is the one before, or as Python rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Crop {
    Before(usize),
    Rounded(usize),
}

/// `preprocessor_config.json`.
#[derive(Debug, Deserialize)]
struct File {
    image_processor_type: Option<String>,
    feature_extractor_type: Option<String>,
    #[serde(default = "yes")]
    do_resize: bool,
    size: Option<Size>,
    resample: Option<u8>,
    do_center_crop: Option<bool>,
    crop_size: Option<Size>,
    crop_pct: Option<f64>,
    #[serde(default = "yes")]
    do_rescale: bool,
    rescale_factor: Option<f64>,
    #[serde(default = "yes")]
    do_normalize: bool,
    image_mean: Option<[f32; 3]>,
    image_std: Option<[f32; 3]>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Size {
    Side(usize),
    Square { height: usize, width: usize },
    Shorter { shortest_edge: usize },
}

/// `pretrained_cfg` of timm.
#[derive(Debug, Deserialize)]
struct Timm {
    input_size: [usize; 3],
    interpolation: String,
    crop_pct: f64,
    #[serde(default)]
    crop_mode: Option<String>,
    mean: [f32; 3],
    std: [f32; 3],
}

/// What a kind of processor does where the file is silent.
struct Kind {
    crops: bool,
    /// A size of one number is the shorter side.
    keeps_proportions: bool,
    resample: u8,
    convnext: bool,
}

impl Kind {
    fn of(name: &str) -> Result<Self, PrepareError> {
        let bare = name.strip_suffix("Fast").unwrap_or(name);
        let bare = bare.strip_suffix("ImageProcessor").unwrap_or(bare);
        let bare = bare.strip_suffix("FeatureExtractor").unwrap_or(bare);
        let kind = |crops, keeps_proportions, resample, convnext| Self {
            crops,
            keeps_proportions,
            resample,
            convnext,
        };
        match bare {
            "ViT" => Ok(kind(false, false, BILINEAR, false)),
            "Siglip" | "Blip" => Ok(kind(false, false, BICUBIC, false)),
            "CLIP" | "Bit" => Ok(kind(true, true, BICUBIC, false)),
            "ConvNext" => Ok(kind(false, true, BICUBIC, true)),
            _ => Err(PrepareError::Unsupported {
                key: "image_processor_type",
                value: name.chars().take(64).collect(),
                reason: "known are ViT, CLIP, Siglip, Blip, Bit and ConvNext",
            }),
        }
    }
}

impl Prepare {
    /// From a `preprocessor_config.json`; old ones name no kind of processor, and have the
    /// family's then.
    ///
    /// # Errors
    /// [`PrepareError`].
    pub(super) fn from_transformers(
        bytes: &[u8],
        of_family: Option<&str>,
    ) -> Result<Self, PrepareError> {
        let file: File = parse(PREPROCESSOR, bytes)?;
        let name = file.image_processor_type.as_deref().or(file.feature_extractor_type.as_deref());
        let name = name.or(of_family);
        let kind = Kind::of(name.ok_or(PrepareError::Missing { key: "image_processor_type" })?)?;
        for (key, found) in [("do_resize", file.do_resize), ("do_rescale", file.do_rescale)] {
            if !found {
                let (value, reason) = ("false".to_owned(), "it is always done");
                return Err(PrepareError::Unsupported { key, value, reason });
            }
        }
        let size = file.size.ok_or(PrepareError::Missing { key: "size" })?;
        let mut resize = match size {
            Size::Side(side) if kind.keeps_proportions => Resize::Shorter(side),
            Size::Side(side) => Resize::Square(side),
            Size::Square { height, width } => Resize::Square(square("size", height, width)?),
            Size::Shorter { shortest_edge } => Resize::Shorter(shortest_edge),
        };
        let crop = if kind.convnext {
            let (Resize::Shorter(side) | Resize::Square(side)) = resize;
            if side < CONVNEXT_WHOLE_SIDE {
                let share = file.crop_pct.unwrap_or(224.0 / 256.0);
                resize = Resize::Shorter(enlarged(side, share)?);
                Some(Crop::Before(side))
            } else {
                resize = Resize::Square(side);
                None
            }
        } else if file.do_center_crop.unwrap_or(kind.crops) {
            let size = file.crop_size.ok_or(PrepareError::Missing { key: "crop_size" })?;
            Some(Crop::Before(match size {
                Size::Side(side) | Size::Shorter { shortest_edge: side } => side,
                Size::Square { height, width } => square("crop_size", height, width)?,
            }))
        } else {
            None
        };
        let scale = file.rescale_factor.unwrap_or(1.0 / 255.0);
        let (mean, deviation) = if file.do_normalize {
            let mean = file.image_mean.ok_or(PrepareError::Missing { key: "image_mean" })?;
            (mean, file.image_std.ok_or(PrepareError::Missing { key: "image_std" })?)
        } else {
            ([0.0; 3], [1.0; 3])
        };
        let filter = filter(file.resample.unwrap_or(kind.resample))?;
        let value = |byte: u8| (f64::from(byte) * scale) as f32;
        Self::new(resize, filter, crop, table(value, mean, deviation)?)
    }

    /// From the `pretrained_cfg` of timm.
    ///
    /// # Errors
    /// [`PrepareError`].
    pub(super) fn from_timm(cfg: &serde_json::Value) -> Result<Self, PrepareError> {
        let timm: Timm = parse("config.json (pretrained_cfg)", cfg.to_string().as_bytes())?;
        let mode = timm.crop_mode.as_deref().unwrap_or("center");
        if mode != "center" {
            let (key, value) = ("crop_mode", mode.chars().take(64).collect());
            let reason = "the middle is cut out";
            return Err(PrepareError::Unsupported { key, value, reason });
        }
        let [_, height, width] = timm.input_size;
        let side = square("input_size", height, width)?;
        let filter = match &*timm.interpolation {
            "bilinear" => Filter::Bilinear,
            "bicubic" => Filter::Bicubic,
            other => return filter_unknown("interpolation", other.chars().take(64).collect()),
        };
        let resize = Resize::Shorter(enlarged(side, timm.crop_pct)?);
        let value = |byte: u8| f32::from(byte) / 255.0;
        let table = table(value, timm.mean, timm.std)?;
        Self::new(resize, filter, Some(Crop::Rounded(side)), table)
    }

    fn new(
        resize: Resize,
        filter: Filter,
        crop: Option<Crop>,
        table: Box<[[f32; 3]; 256]>,
    ) -> Result<Self, PrepareError> {
        let side = match (crop, resize) {
            (Some(Crop::Before(side) | Crop::Rounded(side)), _) | (None, Resize::Square(side)) => {
                side
            }
            (None, Resize::Shorter(side)) => {
                let (key, value) = ("do_center_crop", "false".to_owned());
                let reason = "an input has to be a square";
                return Err(PrepareError::Unsupported {
                    key,
                    value: format!("{value} (size {side})"),
                    reason,
                });
            }
        };
        let (Resize::Square(resized) | Resize::Shorter(resized)) = resize;
        for (key, value) in [("size", resized), ("crop_size", side)] {
            if value == 0 || value > SIDE_MAX {
                let reason = "a side has between 1 and 2048 pixels";
                return Err(PrepareError::Unsupported { key, value: value.to_string(), reason });
            }
        }
        Ok(Self { resize, filter, crop, table, side })
    }

    /// Pixels of a side of the input.
    #[must_use]
    pub fn side(&self) -> usize {
        self.side
    }

    /// The input of a picture: 1 x side x side x 3. Of a picture that is longer than 16 times its
    /// width, the middle is taken.
    #[must_use]
    pub fn input(&self, picture: &Picture) -> Map {
        let cut = middle(picture);
        let picture = cut.as_ref().unwrap_or(picture);
        let (width, height) = (picture.width, picture.height);
        let (to_width, to_height) = match self.resize {
            Resize::Square(side) => (side, side),
            Resize::Shorter(side) if width <= height => (side, side * height / width),
            Resize::Shorter(side) => (side * width / height, side),
        };
        let resized = resize_antialiased(picture, to_width, to_height, self.filter);
        let middle = match self.crop {
            None => resized,
            Some(kind) => {
                let at = |size: usize| {
                    let left = size as isize - self.side as isize;
                    match kind {
                        // To the even one of two that are as near.
                        Crop::Rounded(_) if left.rem_euclid(4) == 3 => left.div_euclid(2) + 1,
                        Crop::Rounded(_) | Crop::Before(_) => left.div_euclid(2),
                    }
                };
                let from = (at(resized.width), at(resized.height));
                crop(&resized, from, (self.side, self.side), [0; 3])
            }
        };
        let mut data = Vec::with_capacity(middle.rgb.len());
        for pixel in middle.rgb.chunks_exact(3) {
            data.extend((0..3).map(|channel| self.table[usize::from(pixel[channel])][channel]));
        }
        Map::new((1, self.side, self.side, 3), data)
    }
}

fn filter(resample: u8) -> Result<Filter, PrepareError> {
    match resample {
        BILINEAR => Ok(Filter::Bilinear),
        BICUBIC => Ok(Filter::Bicubic),
        other => filter_unknown("resample", other.to_string()),
    }
}

fn filter_unknown<T>(key: &'static str, value: String) -> Result<T, PrepareError> {
    let reason = "known are bilinear (2) and bicubic (3)";
    Err(PrepareError::Unsupported { key, value, reason })
}

fn square(key: &'static str, height: usize, width: usize) -> Result<usize, PrepareError> {
    if height == width {
        return Ok(height);
    }
    let reason = "an input has to be a square";
    Err(PrepareError::Unsupported { key, value: format!("{height} x {width}"), reason })
}

/// The side of which `side` is that share.
fn enlarged(side: usize, share: f64) -> Result<usize, PrepareError> {
    if share > 0.1 && share <= 1.0 {
        return Ok((side as f64 / share) as usize);
    }
    let reason = "it must be over 0.1 and at most 1";
    Err(PrepareError::Unsupported { key: "crop_pct", value: share.to_string(), reason })
}

fn table(
    value: impl Fn(u8) -> f32,
    mean: [f32; 3],
    deviation: [f32; 3],
) -> Result<Box<[[f32; 3]; 256]>, PrepareError> {
    let mut table = Box::new([[0.0; 3]; 256]);
    for (byte, row) in (0_u8..=255).zip(table.iter_mut()) {
        for channel in 0..3 {
            row[channel] = (value(byte) - mean[channel]) / deviation[channel];
        }
    }
    if table.iter().flatten().all(|value| value.is_finite()) {
        return Ok(table);
    }
    let reason = "the values of a picture would not be finite";
    let value = format!("{deviation:?}");
    Err(PrepareError::Unsupported { key: "image_std", value, reason })
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str, sentence: &str) {
        let error = Prepare::from_transformers(text.as_bytes(), None).unwrap_err();
        assert!(error.to_string().contains(sentence), "{error}");
    }

    #[test]
    fn what_is_missing_or_not_done_is_named() {
        refused("{}", "has no image_processor_type");
        refused(r#"{"image_processor_type": "Fuyu"}"#, "known are ViT");
        refused(r#"{"image_processor_type": "ViTImageProcessor"}"#, "has no size");
        refused("[]", "cannot be used");
        let with =
            |more: &str| format!(r#"{{"image_processor_type": "ViTImageProcessor", {more}}}"#);
        refused(&with(r#""size": 32"#), "has no image_mean");
        let values = r#""image_mean": [0, 0, 0], "image_std": [1, 1, 1]"#;
        refused(&with(&format!(r#""size": 0, {values}"#)), "between 1 and 2048");
        refused(&with(&format!(r#""size": 99999, {values}"#)), "between 1 and 2048");
        refused(&with(&format!(r#""size": 32, "resample": 0, {values}"#)), "bilinear (2)");
        refused(&with(&format!(r#""size": 32, "do_rescale": false, {values}"#)), "always done");
        refused(&with(&format!(r#""size": {{"height": 3, "width": 4}}, {values}"#)), "square");
        let zero = r#""image_mean": [0, 0, 0], "image_std": [1, 0, 1]"#;
        refused(&with(&format!(r#""size": 32, {zero}"#)), "would not be finite");
        let fine = with(&format!(r#""size": 32, {values}"#));
        let named = Prepare::from_transformers(fine.as_bytes(), None).unwrap();
        assert_eq!(named.side(), 32);
        let old = format!(r#"{{"size": 32, {values}}}"#);
        let old = Prepare::from_transformers(old.as_bytes(), Some("ViT")).unwrap();
        assert_eq!(old, named);
    }
}
