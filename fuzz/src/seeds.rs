//! Inputs to begin with: small valid files of every kind, requests of every shape, and the files of
//! the repository itself. Those under `seeds/` were made by Pillow, pickle and onnx.

use std::path::{Path, PathBuf};

use aisemble_data_processor::engine::{self, Counters, Plan, Source, Table, Task};
use aisemble_protocol::data::{ReadOptions, TableFormat};
use aisemble_protocol::v1;
use prost::Message as _;

type Seeds = Vec<Vec<u8>>;

fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().map_or_else(|| here.to_owned(), Path::to_owned)
}

fn file(path: &str) -> Vec<u8> {
    let path = repository().join(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn folder(path: &str) -> Seeds {
    let path = repository().join("fuzz/seeds").join(path);
    let entries = std::fs::read_dir(&path);
    let entries = entries.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut names: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    names.sort();
    names.iter().map(|path| std::fs::read(path).unwrap_or_default()).collect()
}

/// A first byte before each text.
fn chosen(texts: &[(u8, &str)]) -> Seeds {
    let with = |(first, text): &(u8, &str)| [&[*first], text.as_bytes()].concat();
    texts.iter().map(with).collect()
}

fn plain(texts: &[&str]) -> Seeds {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

pub(crate) fn nlp_requests() -> Seeds {
    chosen(&[
        (0, r#"{"texts":["a","b"],"model":"m","dimensions":64,"normalize":false,"stream":true}"#),
        (0, r#"{"tokens":[[1,2],[3]],"representation":"sparse","terms_max":3}"#),
        (1, r#"{"query":"q","documents":["a","b"],"top_n":1,"return_documents":true}"#),
        (
            2,
            r#"{"texts":"one","top_k":2,"job":{"priority":"batch","deadline_ms":5,"metadata":{}}}"#,
        ),
        (3, r#"{"texts":["x"],"aggregation":"first","score_min":0.5,"labels":["PER"]}"#),
        (
            4,
            r#"{"texts":["x"],"rules":["email","iban"],
            "patterns":[{"label":"T","pattern":"T-\\d+"}],
            "entities":true,"entity_labels":["PER"],"replacement":"mask","mask":"█"}"#,
        ),
    ])
}

pub(crate) fn vision_requests() -> Seeds {
    plain(&[
        r#"{"images":[{"data":"Y2F0"},{"file":"file-1"}],"tasks":["classify","faces"]}"#,
        r#"{"images":[{"data":"data:image/png;base64,ZG9n"}],"tasks":[{"task":"zero_shot",
            "labels":["a","b"],"top_k":2}],"response":"annotated"}"#,
        r#"{"tasks":[{"task":"detect","nms_iou":0.5,"score_min":0.1,"model":"m"}],"top_k":5}"#,
    ])
}

pub(crate) fn llm_requests() -> Seeds {
    plain(&[
        r#"{"prompt":"Once","max_tokens":5,"temperature":0.7,"top_p":0.9,"top_k":40,"seed":1}"#,
        r#"{"messages":[{"role":"system","content":"a"},{"role":"user","content":"b"}],
            "stop":["x","\n"],"logprobs":true,"top_logprobs":2,"stream":true}"#,
        r#"{"prompt":"a","response_format":{"type":"json_schema","json_schema":{"name":"n",
            "schema":{"type":"object","properties":{"a":{"type":"integer"}}}}}}"#,
        r#"{"prompt":"a","response_format":{"type":"regex","regex":"[a-z]+"},"redact":{}}"#,
        r#"{"messages":[{"role":"user","content":"w"}],"tools":[{"type":"function","function":{
            "name":"f","parameters":{"type":"object","properties":{}}}}],"tool_choice":"auto"}"#,
        r#"{"prompt":"a","job":{"priority":"interactive","deadline_ms":1000,"attempts_max":3}}"#,
    ])
}

pub(crate) fn data_requests() -> Seeds {
    plain(&[
        r#"{"tables":[{"name":"t","rows":[{"a":1},{"a":null}]}],"sql":"SELECT a FROM t"}"#,
        r#"{"tables":[{"name":"t","csv":"a,b\n1,2\n","options":{"delimiter":";","header":false,
            "columns":{"a":"int64"}}}],"pipeline":[{"op":"filter","where":"a > 1"},
            {"op":"sort","by":[{"by":"a","descending":true}]}],"output":{"format":"parquet"}}"#,
        r#"{"tables":[{"name":"t","rows":[]}],"pipeline":[{"op":"group_by","by":["a"],
            "aggregate":["COUNT(*) AS n"]}],"profile":true,"preview_rows":3,
            "limits":{"wall_ms":1000,"memory_bytes":1000000}}"#,
    ])
}

pub(crate) fn workflows() -> Seeds {
    ["tickets", "dedup", "pictures"]
        .map(|name| file(&format!("configs/examples/{name}.json")))
        .into()
}

pub(crate) fn messages() -> Seeds {
    let embed = v1::NlpRequest {
        model: "m".to_owned(),
        task: Some(v1::nlp_request::Task::Embed(v1::EmbedTask {
            texts: vec!["a".to_owned()],
            ..v1::EmbedTask::default()
        })),
        ..v1::NlpRequest::default()
    };
    let analyze = v1::AnalyzeRequest { images: vec![vec![1, 2]], ..v1::AnalyzeRequest::default() };
    let generate = v1::GenerateRequest {
        max_tokens: 5,
        stop: vec!["x".to_owned()],
        ..v1::GenerateRequest::default()
    };
    let process = v1::ProcessRequest {
        plan: Some(v1::process_request::Plan::Sql("SELECT 1".to_owned())),
        ..v1::ProcessRequest::default()
    };
    let redact = v1::RedactTask {
        rules: vec!["email".to_owned()],
        patterns: vec![v1::CustomPattern { label: "T".to_owned(), pattern: r"T-\d+".to_owned() }],
        ..v1::RedactTask::default()
    };
    let messages = [
        embed.encode_to_vec(),
        analyze.encode_to_vec(),
        generate.encode_to_vec(),
        process.encode_to_vec(),
        redact.encode_to_vec(),
    ];
    let with = |(kind, message): (usize, Vec<u8>)| [vec![kind as u8], message].concat();
    messages.into_iter().enumerate().map(with).collect()
}

pub(crate) fn pictures() -> Seeds {
    folder("picture")
}

pub(crate) fn foreign() -> Seeds {
    folder("foreign-weights")
}

pub(crate) fn safetensors() -> Seeds {
    let header = br#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    let length = (header.len() as u64).to_le_bytes();
    let small = [&length[..], header, &1_f32.to_le_bytes(), &2_f32.to_le_bytes()].concat();
    let data = "containers/ai-services/nlp/tests/data";
    vec![
        small,
        file("configs/models/sentiment-minilm/model.safetensors"),
        file(&format!("{data}/bert-tokens/model.safetensors")),
    ]
}

pub(crate) fn configs() -> Seeds {
    let names = ["llm", "nlp", "vision", "data-processor"];
    let with = |(whose, name): (usize, &&str)| {
        [vec![whose as u8], file(&format!("configs/{name}.toml"))].concat()
    };
    names.iter().enumerate().map(with).collect()
}

pub(crate) fn csv() -> Seeds {
    plain(&[
        "name,born,height\nAda,1815-12-10,1.65\nGrace,,1.6\n",
        "a;b\n\"x;\"\"y\"\"\";2\n\n1,1;-3\r\n",
        "n\n1\n2.5\nNA\ntrue\n2024-01-15T10:00:00Z\n9223372036854775808\n",
    ])
}

pub(crate) fn parquet() -> Seeds {
    let made = tempfile::tempdir().map(|folder| {
        let path = folder.path().join("t.parquet");
        let options = ReadOptions::default();
        let source = Source::Bytes(csv().swap_remove(0));
        let table = Table { name: "t".to_owned(), format: TableFormat::Csv, options, source };
        let task = Task {
            tables: vec![table],
            plan: Plan::AsItIs,
            output: Some((TableFormat::Parquet, path.clone())),
            output_bytes_max: 1 << 20,
            preview_rows: 1,
            profile: false,
        };
        let written = engine::run(&task, &Counters::default());
        assert!(written.is_ok(), "{written:?}");
        std::fs::read(path).unwrap_or_default()
    });
    vec![made.unwrap_or_default()]
}

pub(crate) fn sql() -> Seeds {
    chosen(&[
        (
            0,
            "SELECT a, COUNT(*) AS n FROM t WHERE b > 1 GROUP BY a HAVING n > 2 ORDER BY n LIMIT 3",
        ),
        (0, "WITH x AS (SELECT * FROM t) SELECT x.a FROM x JOIN u ON x.id = u.id UNION SELECT 1"),
        (0, "SELECT a, SUM(b) OVER (PARTITION BY c ORDER BY d) FROM t, UNNEST([1, 2]) AS q"),
        (0, "EXPLAIN SELECT CASE WHEN a IN (1, 2) THEN 'x' ELSE b::text END FROM (SELECT 1) AS s"),
        (0, "SELECT * FROM read_csv('/etc/passwd')"),
        (1, "ROUND(price * 2, 1) AS double"),
        (1, "COALESCE(LOWER(name), 'x') LIKE '%a' AND NOT (b BETWEEN 1 AND 2)"),
    ])
}

pub(crate) fn templates() -> Seeds {
    folder("chat-template")
}

pub(crate) fn schemas() -> Seeds {
    folder("schema")
}

pub(crate) fn grammars() -> Seeds {
    chosen(&[
        (0, r"(yes|no)[0-9]{1,3}(\.\d+)?"),
        (0, r"[^\s]+@[a-z]+\.(com|org)"),
        (1, "start: \"a\" b+\nb: /[0-9]+/ | \"(\" start \")\"\n"),
        (1, "start: item (\",\" item)*\nitem: NAME \"=\" NUM\nNAME: /[a-z]{1,5}/\nNUM: /[0-9]+/\n"),
    ])
}

pub(crate) fn texts() -> Seeds {
    plain(&[
        "\nMail jane.doe+x@mail.example.co.uk or call +49 (0)30 901820, 0049 30 901820.",
        "T-\\d+\nT-12: IBAN DE89 3704 0044 0532 0130 00, card 4111 1111 1111 1111 12/27",
        "\nfrom 192.168.0.1:80 to 2001:db8::ff00:42:8329, 00:1B:44:11:3A:B7, https://example.com/a",
        "(a|b)*c\nSSN 123-45-6789, 000-12-3456, DE89370400440532013001 on 05.06.2024 é\u{1f34e}",
    ])
}

/// A GGUF file of a Llama of one layer with a byte-level vocabulary.
pub(crate) fn gguf() -> Seeds {
    let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let entry =
        |key: &str, kind: u32, value: &[u8]| [&text(key)[..], &kind.to_le_bytes(), value].concat();
    let number = |key: &str, value: u32| entry(key, 4, &value.to_le_bytes());
    let float = |key: &str, value: f32| entry(key, 6, &value.to_le_bytes());
    let string = |key: &str, value: &str| entry(key, 8, &text(value));
    let list = |key: &str, kind: u32, count: usize, items: Vec<u8>| {
        let head = [&kind.to_le_bytes()[..], &(count as u64).to_le_bytes()].concat();
        entry(key, 9, &[head, items].concat())
    };
    // The printable bytes stand for themselves; that is enough of a vocabulary.
    let mut tokens: Vec<String> = (33..127).map(|byte: u8| char::from(byte).to_string()).collect();
    tokens.extend(["Ġ", "Ċ", "he", "Ġhe", "<s>", "</s>"].map(str::to_owned));
    let kinds = tokens.iter().map(|token| if token.starts_with("<s") { 3_i32 } else { 1 });
    let vocabulary = list(
        "tokenizer.ggml.tokens",
        8,
        tokens.len(),
        tokens.iter().flat_map(|token| text(token)).collect(),
    );
    let entries = [
        string("general.architecture", "llama"),
        number("llama.block_count", 1),
        number("llama.context_length", 64),
        number("llama.embedding_length", 32),
        number("llama.feed_forward_length", 64),
        number("llama.attention.head_count", 2),
        number("llama.attention.head_count_kv", 1),
        float("llama.attention.layer_norm_rms_epsilon", 1e-5),
        float("llama.rope.freq_base", 10_000.0),
        string("tokenizer.ggml.model", "gpt2"),
        string("tokenizer.ggml.pre", "smollm"),
        vocabulary,
        list(
            "tokenizer.ggml.token_type",
            5,
            tokens.len(),
            kinds.flat_map(i32::to_le_bytes).collect(),
        ),
        list("tokenizer.ggml.merges", 8, 2, ["h e", "Ġ he"].into_iter().flat_map(text).collect()),
        number("tokenizer.ggml.bos_token_id", tokens.len() as u32 - 2),
        number("tokenizer.ggml.eos_token_id", tokens.len() as u32 - 1),
        string("tokenizer.chat_template", "{{ messages[0].content }}"),
    ];
    let tensor = |name: &str, dims: &[u64], kind: u32, offset: u64| {
        let mut info = text(name);
        info.extend((dims.len() as u32).to_le_bytes());
        info.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
        info.extend(kind.to_le_bytes());
        info.extend(offset.to_le_bytes());
        info
    };
    let tensors = [
        tensor("output_norm.weight", &[32], 0, 0),
        tensor("token_embd.weight", &[32, 100], 8, 128),
    ];
    let mut file = b"GGUF".to_vec();
    file.extend(3_u32.to_le_bytes());
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend((entries.len() as u64).to_le_bytes());
    file.extend(entries.concat());
    file.extend(tensors.concat());
    file.resize(file.len().next_multiple_of(32), 0);
    file.resize(file.len() + 128 + 34 * 100, 0);
    vec![file]
}
