//! Queries without a process around them: what each operation of a pipeline does, and that nothing
//! of a request can make the parsers panic.

use aisemble_protocol::data::{Operation, ReadOptions, TableFormat};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Counters, Plan, Source, Table, Task, allow, run};

const PEOPLE: &str = "name,team,score,born,tags\n\
    Ada,red,3,1815-12-10,x;y\n\
    Alan,red,,1912-06-23,y\n\
    Grace,blue,7,1906-12-09,\n\
    Edsger,blue,5,1930-05-11,x;z\n";

fn csv(name: &str, text: &str) -> Table {
    Table {
        name: name.to_owned(),
        format: TableFormat::Csv,
        options: ReadOptions::default(),
        source: Source::Bytes(text.as_bytes().to_vec()),
    }
}

fn task(plan: Plan) -> Task {
    let teams = csv("teams", "team,boss\nred,Ren\ngreen,Gus\n");
    Task {
        tables: vec![csv("people", PEOPLE), teams],
        plan,
        output: None,
        output_bytes_max: 0,
        preview_rows: 100,
        profile: false,
    }
}

fn pipeline(operations: &Value) -> Result<Value, String> {
    let operations: Vec<Operation> = serde_json::from_value(operations.clone()).unwrap();
    let plan = Plan::Pipeline { from: String::new(), operations };
    let result = run(&task(plan), &Counters::default()).map_err(|error| error.message)?;
    Ok(serde_json::to_value(result.preview).unwrap())
}

fn check(operations: Value, expected: Value) {
    assert_eq!(pipeline(&operations).as_ref(), Ok(&expected), "{operations}");
}

#[test]
fn columns_are_chosen_computed_and_renamed() {
    check(
        json!([{"op": "select", "columns": ["name", "score * 2 AS double"]}, {"op": "limit", "rows": 2}]),
        json!([{"name": "Ada", "double": 6}, {"name": "Alan", "double": null}]),
    );
    check(
        json!([
            {"op": "with_columns", "columns": ["UPPER(team) AS team"]},
            {"op": "drop", "columns": ["born", "tags", "score"]},
            {"op": "rename", "columns": {"team": "side"}},
            {"op": "limit", "rows": 1, "offset": 2},
        ]),
        json!([{"name": "Grace", "side": "BLUE"}]),
    );
    check(
        json!([{"op": "filter", "where": "score >= 5 AND team = 'blue'"},
            {"op": "row_number", "name": "n", "start": 1}, {"op": "select", "columns": ["n", "name"]}]),
        json!([{"n": 1, "name": "Grace"}, {"n": 2, "name": "Edsger"}]),
    );
}

#[test]
fn groups_windows_and_orders() {
    check(
        json!([{"op": "group_by", "by": ["team"], "aggregate": ["SUM(score) AS s", "COUNT(*) AS n"],
            "keep_order": true}]),
        json!([{"team": "red", "s": 3, "n": 2}, {"team": "blue", "s": 12, "n": 2}]),
    );
    check(
        json!([{"op": "group_by", "by": [], "aggregate": ["MAX(score) AS best"]}]),
        json!([{"best": 7}]),
    );
    check(
        json!([
            {"op": "window", "partition_by": ["team"], "columns": ["SUM(score) AS of_team"]},
            {"op": "sort", "by": [{"by": "of_team", "descending": true}, {"by": "name"}]},
            {"op": "select", "columns": ["name", "of_team"]},
        ]),
        json!([
            {"name": "Edsger", "of_team": 12}, {"name": "Grace", "of_team": 12},
            {"name": "Ada", "of_team": 3}, {"name": "Alan", "of_team": 3},
        ]),
    );
}

#[test]
fn tables_are_joined_and_stacked() {
    check(
        json!([{"op": "join", "table": "teams", "how": "left", "on": ["team"]},
            {"op": "sort", "by": [{"by": "name"}]}, {"op": "select", "columns": ["name", "boss"]}]),
        json!([
            {"name": "Ada", "boss": "Ren"}, {"name": "Alan", "boss": "Ren"},
            {"name": "Edsger", "boss": null}, {"name": "Grace", "boss": null},
        ]),
    );
    check(
        json!([{"op": "join", "table": "teams", "how": "anti", "left_on": ["team"],
            "right_on": ["team"]}, {"op": "group_by", "by": [], "aggregate": ["COUNT(*) AS n"]}]),
        json!([{"n": 2}]),
    );
    check(
        json!([{"op": "select", "columns": ["team"]}, {"op": "union", "tables": ["teams"],
            "how": "fill"}, {"op": "group_by", "by": [], "aggregate": ["COUNT(*) AS n",
            "COUNT(boss) AS bosses"]}]),
        json!([{"n": 6, "bosses": 2}]),
    );
}

#[test]
fn tables_change_their_shape() {
    check(
        json!([
            {"op": "with_columns", "columns": ["STRPOS(tags, 'x') > 0 AS has"]},
            {"op": "pivot", "index": ["team"], "on": "name", "values": "score", "aggregate": "max"},
            {"op": "sort", "by": [{"by": "team"}]}, {"op": "select", "columns": ["team", "Ada", "Grace"]},
        ]),
        json!([{"team": "blue", "Ada": null, "Grace": 7}, {"team": "red", "Ada": 3, "Grace": null}]),
    );
    check(
        json!([
            {"op": "limit", "rows": 1}, {"op": "select", "columns": ["name", "score"]},
            {"op": "unpivot", "index": ["name"], "variable_name": "what"},
        ]),
        json!([{"name": "Ada", "what": "score", "value": 3}]),
    );
    check(
        json!([
            {"op": "string", "column": "tags", "function": {"name": "split", "by": ";"}},
            {"op": "explode", "columns": ["tags"]}, {"op": "drop_nulls", "columns": ["tags"]},
            {"op": "group_by", "by": ["tags"], "aggregate": ["COUNT(*) AS n"]},
            {"op": "sort", "by": [{"by": "tags"}]},
        ]),
        json!([{"tags": "x", "n": 2}, {"tags": "y", "n": 2}, {"tags": "z", "n": 1}]),
    );
    let drawn =
        json!([{"op": "sample", "rows": 2, "seed": 5}, {"op": "select", "columns": ["name"]}]);
    let (once, again) = (pipeline(&drawn).unwrap(), pipeline(&drawn).unwrap());
    assert_eq!((once.as_array().unwrap().len(), &once), (2, &again));
    let half = json!([{"op": "sample", "fraction": 0.5}]);
    assert_eq!(pipeline(&half).unwrap().as_array().unwrap().len(), 2);
}

#[test]
fn values_are_filled_cast_and_read() {
    check(
        json!([
            {"op": "fill_null", "columns": ["score"], "with": "mean"},
            {"op": "filter", "where": "name = 'Alan'"}, {"op": "select", "columns": ["score"]},
        ]),
        json!([{"score": 5.0}]),
    );
    check(
        json!([
            {"op": "fill_null", "with": {"value": 0}}, {"op": "cast", "columns": {"score": "string"}},
            {"op": "select", "columns": ["score"]}, {"op": "limit", "rows": 2},
        ]),
        json!([{"score": "3"}, {"score": "0"}]),
    );
    check(
        json!([
            {"op": "parse_dates", "columns": ["born"], "format": "%Y-%m-%d"},
            {"op": "temporal", "column": "born", "function": {"name": "truncate", "every": "1y"},
                "into": "year"},
            {"op": "temporal", "column": "born", "function": {"name": "format", "format": "%d.%m."},
                "into": "day"},
            {"op": "select", "columns": ["born", "year", "day"]}, {"op": "limit", "rows": 1},
        ]),
        json!([{"born": "1815-12-10", "year": "1815-01-01", "day": "10.12."}]),
    );
    check(
        json!([
            {"op": "string", "column": "name", "into": "first",
                "function": {"name": "extract", "pattern": "^(.)", "group": 1}},
            {"op": "string", "column": "name", "into": "no_vowels",
                "function": {"name": "replace", "pattern": "[aeiou]", "with": ""}},
            {"op": "select", "columns": ["first", "no_vowels"]}, {"op": "limit", "rows": 1},
        ]),
        json!([{"first": "A", "no_vowels": "Ad"}]),
    );
    check(
        json!([{"op": "distinct", "columns": ["team"], "keep": "first", "keep_order": true},
            {"op": "select", "columns": ["name"]}]),
        json!([{"name": "Ada"}, {"name": "Grace"}]),
    );
}

#[test]
fn a_table_is_described() {
    let described = pipeline(&json!([{"op": "describe"}])).unwrap();
    let row = |name: &str| {
        let rows = described.as_array().unwrap();
        rows.iter().find(|row| row["statistic"] == name).unwrap().clone()
    };
    assert_eq!(
        (row("count")["score"].clone(), row("nulls")["score"].clone()),
        (json!(3.0), json!(1.0))
    );
    assert_eq!(
        (row("mean")["score"].clone(), row("max")["name"].clone()),
        (json!(5.0), json!("Grace"))
    );
    assert_eq!(row("50%")["score"], json!(5.0));
}

#[test]
fn what_the_streaming_engine_cannot_do_is_done_in_memory() {
    check(
        json!([{"op": "with_columns", "columns": ["CAST(score AS DECIMAL(10, 2)) AS score"]},
            {"op": "sort", "by": [{"by": "score", "descending": true, "nulls_last": true}]},
            {"op": "limit", "rows": 1}, {"op": "select", "columns": ["name", "score"]}]),
        json!([{"name": "Grace", "score": "7.00"}]),
    );
}

#[test]
fn a_mistake_is_said_of_the_operation_that_made_it() {
    let said = |operations: Value| pipeline(&operations).unwrap_err();
    let missing = said(json!([{"op": "limit", "rows": 1}, {"op": "select", "columns": ["nme"]}]));
    assert!(missing.starts_with("pipeline[1]") && missing.contains("nme"), "{missing}");
    let unread = said(json!([{"op": "filter", "where": "score >"}]));
    assert!(unread.starts_with("pipeline[0].where"), "{unread}");
    let function = said(json!([{"op": "select", "columns": ["read_csv('/etc/passwd')"]}]));
    assert!(function.contains("read_csv() is not one of those"), "{function}");
    let wrong = said(json!([{"op": "fill_null", "columns": ["name"], "with": {"value": 1}}]));
    assert!(wrong.contains("of type string"), "{wrong}");
}

proptest! {
    #[test]
    fn any_text_is_a_statement_or_an_error(text in "[a-zA-Z0-9 ,.*()'\"=<>+-]{0,60}") {
        let _ = allow::statement(&text);
        let _ = allow::statement(&format!("SELECT {text} FROM t"));
        let _ = allow::expression(&text, "where");
    }

    #[test]
    fn any_text_is_looked_at(text in ".{0,60}") {
        let _ = allow::statement(&text);
        let _ = allow::expression(&text, "where");
    }
}
