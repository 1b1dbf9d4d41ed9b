//! ResNet and MobileNetV4: which of the known shapes a folder has, and its tensors under the names
//! of timm, which candle's layers ask for.

use aisemble_weights::candle;
use candle_nn::{Func, VarBuilder};
use candle_transformers::models::{mobilenetv4, resnet};

use super::config::{ConfigError, Head, ResnetConfig, parse};
use super::network::CONFIG;
use super::tensors::Named;

/// Channels of the four stages of a ResNet, by the kind of its blocks.
const BASIC: [usize; 4] = [64, 128, 256, 512];
const BOTTLENECK: [usize; 4] = [256, 512, 1024, 2048];

/// The ResNets that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resnet {
    R18,
    R34,
    R50,
    R101,
    R152,
}

impl Resnet {
    /// From the file of transformers or of timm.
    pub(super) fn read(head: &Head, bytes: &[u8]) -> Result<Self, ConfigError> {
        if let Some(name) = &head.architecture {
            let known = [
                ("resnet18", Self::R18),
                ("resnet34", Self::R34),
                ("resnet50", Self::R50),
                ("resnet101", Self::R101),
                ("resnet152", Self::R152),
            ];
            let reason = "known are resnet18, 34, 50, 101 and 152";
            return of_name(name, &known, reason);
        }
        let config: ResnetConfig = parse(CONFIG, bytes)?;
        if config.downsample_in_bottleneck || config.downsample_in_first_stage {
            let (key, value) = ("downsample_in_bottleneck, _first_stage", "true".to_owned());
            let reason = "only the usual form of the network is served";
            return Err(ConfigError::Unsupported { key, value, reason });
        }
        let basic = config.layer_type == "basic";
        let widths = if basic { BASIC } else { BOTTLENECK };
        let known = match (basic, &*config.depths) {
            (true, [2, 2, 2, 2]) => Some(Self::R18),
            (true, [3, 4, 6, 3]) => Some(Self::R34),
            (false, [3, 4, 6, 3]) => Some(Self::R50),
            (false, [3, 4, 23, 3]) => Some(Self::R101),
            (false, [3, 8, 36, 3]) => Some(Self::R152),
            _ => None,
        };
        match known.filter(|_| config.hidden_sizes == widths) {
            Some(known) => Ok(known),
            None => {
                let shown = |list: &[usize]| list.iter().take(8).copied().collect::<Vec<_>>();
                let value =
                    format!("{:?} x {:?}", shown(&config.depths), shown(&config.hidden_sizes));
                let reason = "known are ResNet-18, 34, 50, 101 and 152";
                Err(ConfigError::Unsupported { key: "depths, hidden_sizes", value, reason })
            }
        }
    }

    /// The network without its head.
    pub(super) fn build(self, vb: VarBuilder<'static>) -> candle::Result<Func<'static>> {
        match self {
            Self::R18 => resnet::resnet18_no_final_layer(vb),
            Self::R34 => resnet::resnet34_no_final_layer(vb),
            Self::R50 => resnet::resnet50_no_final_layer(vb),
            Self::R101 => resnet::resnet101_no_final_layer(vb),
            Self::R152 => resnet::resnet152_no_final_layer(vb),
        }
    }

    /// Values of the embedding.
    pub(super) fn features(self) -> usize {
        match self {
            Self::R18 | Self::R34 => BASIC[3],
            Self::R50 | Self::R101 | Self::R152 => BOTTLENECK[3],
        }
    }
}

/// Tensors of transformers' ResNet under the names of timm's; timm's own stay as they are.
pub(super) fn resnet_names(tensors: Named) -> Named {
    tensors.renamed(|name| Some(resnet_name(name)))
}

fn resnet_name(name: &str) -> String {
    let bare = name.strip_prefix("resnet.").unwrap_or(name);
    if let Some(rest) = bare.strip_prefix("embedder.embedder.") {
        return rest.replacen("convolution.", "conv1.", 1).replacen("normalization.", "bn1.", 1);
    }
    if let Some(rest) = bare.strip_prefix("classifier.1.") {
        return format!("fc.{rest}");
    }
    let Some(rest) = bare.strip_prefix("encoder.stages.") else { return name.to_owned() };
    let parts: Vec<&str> = rest.split('.').collect();
    let number = |text: &str| text.parse::<usize>().ok().filter(|number| *number < 100);
    match *parts {
        [stage, "layers", block, "shortcut", kind, last] => {
            let (Some(stage), Some(kind)) = (number(stage), shortcut_part(kind)) else {
                return name.to_owned();
            };
            format!("layer{}.{block}.downsample.{kind}.{last}", stage + 1)
        }
        [stage, "layers", block, "layer", at, kind, last] => {
            let (Some(stage), Some(at)) = (number(stage), number(at)) else {
                return name.to_owned();
            };
            let kind = if kind == "convolution" { "conv" } else { "bn" };
            format!("layer{}.{block}.{kind}{}.{last}", stage + 1, at + 1)
        }
        _ => name.to_owned(),
    }
}

fn shortcut_part(kind: &str) -> Option<usize> {
    match kind {
        "convolution" => Some(0),
        "normalization" => Some(1),
        _ => None,
    }
}

/// The MobileNetV4s that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MobileNetV4 {
    Small,
    Medium,
    Large,
    HybridMedium,
    HybridLarge,
}

impl MobileNetV4 {
    /// From the file of timm.
    pub(super) fn read(head: &Head) -> Result<Self, ConfigError> {
        let known = [
            ("mobilenetv4_conv_small", Self::Small),
            ("mobilenetv4_conv_medium", Self::Medium),
            ("mobilenetv4_conv_large", Self::Large),
            ("mobilenetv4_hybrid_medium", Self::HybridMedium),
            ("mobilenetv4_hybrid_large", Self::HybridLarge),
        ];
        let name = head.architecture.as_deref().unwrap_or("missing");
        of_name(
            name,
            &known,
            "known are mobilenetv4_conv_{small,medium,large}, _hybrid_{medium,large}",
        )
    }

    pub(super) fn config(self) -> mobilenetv4::Config {
        match self {
            Self::Small => mobilenetv4::Config::small(),
            Self::Medium => mobilenetv4::Config::medium(),
            Self::Large => mobilenetv4::Config::large(),
            Self::HybridMedium => mobilenetv4::Config::hybrid_medium(),
            Self::HybridLarge => mobilenetv4::Config::hybrid_large(),
        }
    }
}

fn of_name<T: Copy>(
    name: &str,
    known: &[(&str, T)],
    reason: &'static str,
) -> Result<T, ConfigError> {
    let found = known.iter().find(|(known, _)| *known == name);
    found.map(|(_, of)| *of).ok_or_else(|| {
        let value = name.chars().take(64).collect();
        ConfigError::Unsupported { key: "architecture", value, reason }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_transformers_become_those_of_timm() {
        for (theirs, timms) in [
            ("resnet.embedder.embedder.convolution.weight", "conv1.weight"),
            ("resnet.embedder.embedder.normalization.running_var", "bn1.running_var"),
            (
                "resnet.encoder.stages.1.layers.0.shortcut.convolution.weight",
                "layer2.0.downsample.0.weight",
            ),
            ("encoder.stages.3.layers.2.layer.1.normalization.bias", "layer4.2.bn2.bias"),
            ("classifier.1.weight", "fc.weight"),
            ("layer1.0.conv1.weight", "layer1.0.conv1.weight"),
            (
                "encoder.stages.x.layers.2.layer.1.convolution.weight",
                "encoder.stages.x.layers.2.layer.1.convolution.weight",
            ),
        ] {
            assert_eq!(resnet_name(theirs), timms);
        }
    }
}
