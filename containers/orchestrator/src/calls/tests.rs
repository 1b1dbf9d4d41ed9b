//! Calls in each family's writing, what only looks like one, and texts cut anywhere.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn offer(parallel: bool) -> Arc<Offer> {
    let tool = |name: &str| json!({"type": "function", "function": {"name": name}});
    Arc::new(Offer::read(&[tool("a"), tool("b")], None, Some(parallel)).unwrap().unwrap())
}

fn heard(format: CallFormat, pieces: &[&str]) -> (Heard, usize) {
    let mut scan = CallScan::new(format, offer(true));
    let mut heard = Heard::default();
    for piece in pieces {
        heard.add(scan.push(piece));
    }
    heard.add(scan.finish());
    (heard, scan.calls())
}

#[track_caller]
fn check(format: CallFormat, said: &str, text: &str, calls: &[(&str, &str)]) {
    let (heard, count) = heard(format, &[said]);
    let found: Vec<_> = heard
        .calls
        .iter()
        .map(|call| (call.function.name.as_str(), call.function.arguments.as_str()))
        .collect();
    assert_eq!(
        (heard.text.as_str(), found.as_slice(), count),
        (text, calls, calls.len()),
        "{said}"
    );
}

#[test]
fn tags_as_hermes_and_qwen_write_them() {
    use CallFormat::Tags;
    let one = "<tool_call>\n{\"name\": \"a\", \"arguments\": {\"x\": \"}\\\"\"}}\n</tool_call>";
    let call = ("a", "{\"x\": \"}\\\"\"}");
    check(Tags, one, "", &[call]);
    check(Tags, &format!("Let me see.\n\n{one}\n{one}\n"), "Let me see.", &[call, call]);
    check(Tags, &format!("{one}Done. "), "Done.", &[call]);
    // The closing tag, or more, did not come.
    check(Tags, one.strip_suffix("\n</tool_call>").unwrap(), "", &[call]);
    check(Tags, "<tool_call>{\"name\": \"b\", \"arguments\": {\"x", "", &[("b", "{\"x")]);
    check(
        Tags,
        "<tool_call>{\"name\":\"a\",\"arguments\":{}}<tool_call>{\"name\":\"b\"}",
        "",
        &[("a", "{}"), ("b", "{}")],
    );
    check(
        Tags,
        "<tool_call>{\"arguments\": {\"y\": 1}, \"name\": \"b\"}",
        "",
        &[("b", "{\"y\": 1}")],
    );
    let text = "<tool_call>{\"name\":\"a\",\"arguments\":\"{\\\"x\\\":1}\",\"id\":7}</tool_call>";
    check(Tags, text, "", &[("a", "{\"x\":1}")]);
    check(Tags, "<tool_call>{\"name\":\"a\",\"arguments\":null}</tool_call>", "", &[("a", "{}")]);
}

#[test]
fn json_as_llama_writes_it() {
    use CallFormat::Json;
    let call = ("a", "{\"x\": [1, {}]}");
    check(Json, "{\"name\": \"a\", \"parameters\": {\"x\": [1, {}]}}", "", &[call]);
    let tagged = "<|python_tag|>{\"type\": \"function\", \"name\": \"a\", \"parameters\": \
                  {\"x\": [1, {}]}}; {\"name\": \"b\", \"parameters\": {}}";
    check(Json, tagged, "", &[call, ("b", "{}")]);
    for words in ["Hello {\"name\": \"a\", \"parameters\": {}}", "{\"answer\": 4}", " {", "", "{}"]
    {
        check(Json, words, words, &[]);
    }
}

#[test]
fn lists_and_names_as_mistral_writes_them() {
    use CallFormat::Mistral;
    let list = "[TOOL_CALLS] [{\"name\": \"a\", \"arguments\": {\"x\": 1}}, \
                {\"name\": \"b\", \"arguments\": {}, \"id\": \"123456789\"}]";
    check(Mistral, list, "", &[("a", "{\"x\": 1}"), ("b", "{}")]);
    let named = "Well.[TOOL_CALLS]a[ARGS]{\"x\": 1}[TOOL_CALLS]b[CALL_ID]123[ARGS]{}";
    check(Mistral, named, "Well.", &[("a", "{\"x\": 1}"), ("b", "{}")]);
    check(Mistral, "[TOOL_CALLS]a{\"x\": 1} so", "so", &[("a", "{\"x\": 1}")]);
    let unknown = "[TOOL_CALLS]c[ARGS]{\"x\": 1}";
    check(Mistral, unknown, unknown, &[]);
    let (heard, _) = heard(Mistral, &[list]);
    assert!(heard.calls.iter().all(|call| call.id.len() == 9), "{heard:?}");
}

#[test]
fn what_is_no_call_is_text_to_the_letter() {
    for said in [
        "<tool_call>{no}</tool_call> <tool",
        "a <tool_call>\n\nno JSON</tool_call>",
        "<tool_call>{\"name\": \"unknown\", \"arguments\": {}}</tool_call>",
        "<tool_call>{\"name\": 7, \"arguments\": {}}</tool_call>",
        "<tool_call>{\"name\": \"a\", \"arguments\": [1]}</tool_call>",
        "<tool_call>{\"query\": \"a\"}</tool_call>",
        "<tool_call>{\"name\": \"a\", ",
        " \n",
    ] {
        check(CallFormat::Tags, said, said, &[]);
    }
}

#[test]
fn spaces_without_end_cost_no_more_than_words() {
    let spaces = " ".repeat(100_000);
    let call = "<tool_call>{\"name\": \"a\"}";
    for said in [spaces.clone(), format!("<tool_call>{spaces}"), format!("{call}{spaces}")] {
        for format in [CallFormat::Tags, CallFormat::Json, CallFormat::Mistral] {
            let (heard, calls) = heard(format, &[&said]);
            assert!(calls > 0 || heard.text == said);
        }
    }
}

#[test]
fn one_call_can_be_all_there_is() {
    let one = "<tool_call>{\"name\": \"a\", \"arguments\": {}}</tool_call>";
    let mut scan = CallScan::new(CallFormat::Tags, offer(false));
    let mut heard = Heard::default();
    heard.add(scan.push(one));
    heard.add(scan.push(one));
    heard.add(scan.push("more"));
    heard.add(scan.finish());
    assert_eq!((heard.calls.len(), heard.text.as_str()), (1, ""));
    assert!(heard.calls[0].id.starts_with("call_") && heard.calls[0].id.len() == 29);
    assert_eq!((reason("stop", 1), reason("length", 1)), ("tool_calls", "length"));
    assert_eq!(reason("stop", 0), "stop");
}

#[test]
fn arguments_come_as_they_are_written() {
    let mut scan = CallScan::new(CallFormat::Tags, offer(true));
    assert_eq!(
        scan.push("Hm <tool_call>\n{\"name\": \"a\", \"argu"),
        [Found::Text("Hm".to_owned())]
    );
    let found = scan.push("ments\": {\"x");
    let [Found::Begin { index: 0, name, .. }, Found::Arguments { index: 0, text }] = &found[..]
    else {
        panic!("{found:?}");
    };
    assert_eq!((name.as_str(), text.as_str()), ("a", "{\"x"));
    let more = Found::Arguments { index: 0, text: "\": 1}".to_owned() };
    assert_eq!(scan.push("\": 1}}\n</tool"), [more]);
    assert_eq!(scan.push("_call>"), []);
    assert_eq!(scan.finish(), []);
}

/// Without the ids, which are drawn.
fn plain(heard: Heard) -> (String, Vec<CalledFunction>) {
    (heard.text, heard.calls.into_iter().map(|call| call.function).collect())
}

proptest! {
    #[test]
    fn however_the_text_is_cut_the_same_is_found(
        pieces in proptest::collection::vec(
            "(<tool_call>|</tool_call>|<\\|python_tag\\|>|\\[TOOL_CALLS\\]|\\[ARGS\\]|<|tool|\\[|\
             \\]|;|,|\
             \\{\"name\": \"a\", \"arguments\": \\{\\}\\}|\\{\"name\": \"b\"|, \"arguments\": |\
             \\{\"x\": [1]\\}|\\}|\"|\\\\|a|\n| |é){0,4}",
            0..8,
        ),
        format in 0..3_usize,
    ) {
        let format = [CallFormat::Tags, CallFormat::Json, CallFormat::Mistral][format];
        let whole = pieces.concat();
        let cut: Vec<&str> = pieces.iter().map(String::as_str).collect();
        let (in_pieces, calls) = heard(format, &cut);
        let (at_once, _) = heard(format, &[&whole]);
        let characters: Vec<String> = whole.chars().map(String::from).collect();
        let characters: Vec<&str> = characters.iter().map(String::as_str).collect();
        let (one_by_one, _) = heard(format, &characters);
        if calls == 0 {
            prop_assert_eq!(&in_pieces.text, &whole);
        }
        let expect = plain(in_pieces);
        prop_assert_eq!(&plain(at_once), &expect);
        prop_assert_eq!(&plain(one_by_one), &expect);
    }
}
