//! What a catalogue may say, and what is refused by name.

use proptest::prelude::*;

use super::*;

const SHORT: &str = r#"
[[model]]
name = "tiny"
capability = "llm"
default = true
license = "MIT"
package = "tiny-model"
version = "1.0"
wheel = "tiny.whl"
wheel_sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
inner = "tiny/abc.gguf"
file = "abc.gguf"
bytes = 3
sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
"#;

#[test]
fn the_built_in_catalogue_is_sound_and_has_the_default_of_each_capability() {
    let catalog = Catalog::load(None).unwrap();
    assert_eq!(catalog.pick(None).unwrap().name, "smollm2-135m-instruct");
    for capability in CAPABILITIES {
        let has = |entry: &Entry| entry.default && entry.capability == capability;
        assert!(catalog.models.iter().any(has), "{capability}");
    }
    for entry in &catalog.models {
        assert!(!entry.license.is_empty() && !entry.description.is_empty(), "{}", entry.name);
        assert!(entry.capability == "llm" || !entry.architecture.is_empty(), "{}", entry.name);
        let beside = entry.files.iter().filter(|file| !file.beside.is_empty());
        for file in beside {
            let content = catalog.beside(&file.beside).unwrap();
            assert_eq!(content.len() as u64, file.bytes, "{}", file.beside);
        }
        // Only formats that are data are ever handed to a service.
        for file in &entry.files {
            let ending = file.to.rsplit('.').next().unwrap();
            assert!(["gguf", "safetensors", "json"].contains(&ending), "{}", file.to);
        }
    }
}

#[test]
fn the_short_form_is_a_model_of_one_file() {
    let catalog = Catalog::parse(SHORT, "x").unwrap();
    let entry = catalog.pick(None).unwrap();
    assert_eq!((entry.files.len(), entry.bytes()), (1, 3));
    assert_eq!(entry.files[0].to, "abc.gguf");
    assert_eq!(entry.packages()[0].wheel, "tiny.whl");
}

fn check(text: &str, from: &str, to: &str, sentence: &str) {
    assert!(text.contains(from), "{from}");
    let failure = Catalog::parse(&text.replace(from, to), "x").unwrap_err();
    assert!(failure.message.contains(sentence), "{}", failure.message);
}

#[test]
fn what_is_unsafe_or_unknown_is_refused_by_name() {
    for (from, to, sentence) in [
        ("capability", "capabilitee", "capabilitee"),
        ("\"llm\"", "\"lam\"", "capability is"),
        ("file = \"abc", "file = \"../abc", "file is \"../abc"),
        ("file = \"abc.gguf", "file = \"model.json", "plain file name"),
        ("\"tiny-model\"", "\"--index-url=x\"", "package is"),
        ("\"1.0\"", "\"1.0 --pre\"", "version is"),
        ("ba78", "BA78", "must be 64 lower-case"),
        ("bytes = 3", "bytes = 0", "bytes is 0"),
        ("bytes = 3", "", "belong to it"),
        ("wheel = \"tiny.whl\"", "", "belong together"),
        ("name = \"tiny", "name = \"../tiny", "no model name"),
    ] {
        check(SHORT, from, to, sentence);
    }
    let twice = format!("{SHORT}{SHORT}");
    assert!(Catalog::parse(&twice, "x").unwrap_err().message.contains("twice"));
    let two = twice.replacen("name = \"tiny\"", "name = \"other\"", 1);
    assert!(Catalog::parse(&two, "x").unwrap_err().message.contains("two default"));
    assert!(Catalog::load(None).unwrap().pick(Some("no")).is_err());
}

#[test]
fn a_model_of_several_files_says_where_each_comes_from() {
    let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let long = format!(
        "[[model]]\nname = \"m\"\ncapability = \"vision\"\nlicense = \"MIT\"\n\
         package = \"a\"\nversion = \"1\"\nwheel = \"a.whl\"\nwheel_sha256 = \"{digest}\"\n\
         [[model.file]]\ninner = \"x.pth\"\nto = \"model.safetensors\"\nbytes = 9\n\
         sha256 = \"{digest}\"\nconvert = \"torch\"\nprecision = \"f16\"\n\
         [[model.file]]\ninner = \"l.json\"\nto = \"labels.json\"\nbytes = 9\n\
         sha256 = \"{digest}\"\npackage = \"b\"\nversion = \"2\"\nwheel = \"b.whl\"\n\
         wheel_sha256 = \"{digest}\"\n"
    );
    let catalog = Catalog::parse(&long, "x").unwrap();
    let entry = &catalog.models[0];
    assert_eq!(
        entry.packages().iter().map(|p| p.wheel.as_str()).collect::<Vec<_>>(),
        ["a.whl", "b.whl"]
    );
    let convert = entry.files[0].convert.unwrap();
    assert_eq!((convert.format, convert.precision), (Format::Torch, Precision::F16));
    assert_eq!(entry.files[1].parts[0].package.package, "b");
    check(&long, "\"torch\"", "\"pickle\"", "convert is \"pickle\"");
    check(&long, "\"f16\"", "\"f8\"", "precision is");
    check(&long, "\"labels.json\"", "\"model.safetensors\"", "twice");
    check(&long, "to = \"labels.json\"", "to = \"../l\"", "plain file name");
    check(&long, "inner = \"l.json\"\n", "", "both inner and parts");
    let beside = "beside = \"heads/a.json\"\n";
    check(
        &long,
        "inner = \"l.json\"\n",
        &format!("inner = \"x\"\n{beside}"),
        "comes from elsewhere",
    );
    check(&long, "inner = \"l.json\"\n", "beside = \"../a.json\"\n", "plain names");
    check(&long, "license = \"MIT\"\n", "license = \"MIT\"\ninner = \"x\"\n", "[[model.file]]");
}

proptest! {
    #[test]
    fn any_text_is_answered(text in "\\PC{0,300}", cut in 0_usize..4000) {
        let _ = Catalog::parse(&text, "x");
        for whole in [SHORT, BUILT_IN] {
            let cut = cut.min(whole.len());
            if whole.is_char_boundary(cut) {
                let _ = Catalog::parse(&format!("{}{text}", &whole[..cut]), "x");
            }
        }
    }
}
