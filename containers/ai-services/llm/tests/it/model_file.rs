//! Where the tests' model lies, and the decoder loaded once for all tests of this binary.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use aisemble_llm::model::Decoder;
use aisemble_weights::candle::Device;
use aisemble_weights::kernels::Pool;
use aisemble_weights::{GgufFile, Tokenizer};

/// Digest of the file: `configs/models.toml` pins the same.
pub(crate) const SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
const FILE: &str = "smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf";
/// Positions that the tests' decoder has.
pub(crate) const POSITIONS: usize = 2048;

/// In `AISEMBLE_TEST_CACHE` or `~/.cache/ai-semble`, where `scripts/test.sh` puts it.
pub(crate) fn path() -> PathBuf {
    let cache = std::env::var_os("AISEMBLE_TEST_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/ai-semble"),
        PathBuf::from,
    );
    let path = cache.join("models").join(FILE);
    assert!(path.is_file(), "{} is missing: run scripts/test.sh once", path.display());
    path
}

/// The decoder and its tokenizer.
pub(crate) struct Loaded {
    pub(crate) decoder: Arc<Decoder>,
    pub(crate) tokenizer: Arc<Tokenizer>,
}

/// Loaded at the first call, shared by all.
pub(crate) fn loaded() -> &'static Loaded {
    static LOADED: OnceLock<Loaded> = OnceLock::new();
    LOADED.get_or_init(|| {
        let gguf = GgufFile::open(&path()).unwrap();
        let tokenizer = Arc::new(Tokenizer::from_gguf(&gguf).unwrap());
        let pool = Arc::new(Pool::new(None).unwrap());
        let decoder = Decoder::load(&gguf, POSITIONS, pool, &Device::Cpu, |_, _| {}).unwrap();
        Loaded { decoder: Arc::new(decoder), tokenizer }
    })
}
