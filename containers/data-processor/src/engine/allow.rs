//! What SQL may say: an allow-list over the parsed tree, never a list of forbidden words. It knows
//! the tree of sqlparser, which is also what polars-sql reads; it knows no tables.

use std::ops::ControlFlow;

use aisemble_protocol::ApiError;
use sqlparser::ast::{
    Expr, ObjectName, Query, Select, SetExpr, Statement, TableFactor, Visit, Visitor,
};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::{Parser, ParserError, ParserOptions};
use sqlparser::tokenizer::{Token, Tokenizer};

use super::error;

/// Tokens of one statement or expression.
const TOKENS_MAX: usize = 20_000;
/// Brackets within brackets.
const BRACKETS_DEEP_MAX: usize = 48;
/// Expressions within expressions, `a + b + c` counted as two.
const EXPRESSIONS_DEEP_MAX: usize = 512;
/// SELECTs, and tables in FROM, of one statement: planning takes the square of them.
const PARTS_MAX: usize = 200;

/// The functions that may be called; polars-sql knows some more, which nobody needs yet.
#[rustfmt::skip]
const FUNCTIONS: &[&str] = &[
    "abs", "acos", "acosd", "array_agg", "array_contains", "array_get", "array_length",
    "array_lower", "array_mean", "array_reverse", "array_sum", "array_to_string", "array_unique",
    "array_upper", "asin", "asind", "atan", "atan2", "atan2d", "atand", "avg", "bit_and",
    "bit_count", "bit_length", "bit_not", "bit_or", "bit_xor", "cbrt", "ceil", "ceiling",
    "char_length", "character_length", "coalesce", "concat", "concat_ws", "corr", "cos", "cosd",
    "cot", "cotd", "count", "covar", "covar_pop", "covar_samp", "date", "date_part", "datetime",
    "degrees", "dense_rank", "div", "ends_with", "exp", "first", "first_value", "floor",
    "greatest", "group_concat", "if", "ifnull", "initcap", "lag", "last", "last_value", "lead",
    "least", "left", "length", "listagg", "ln", "log", "log10", "log1p", "log2", "lower", "lpad",
    "ltrim", "max", "median", "min", "mod", "normalize", "nullif", "octet_length", "pi", "pow",
    "power", "quantile_cont", "quantile_disc", "radians", "rank", "regexp_like", "replace",
    "reverse", "right", "round", "row_number", "rpad", "rtrim", "sign", "sin", "sind",
    "split_part", "sqrt", "starts_with", "stddev", "stddev_samp", "stdev", "stdev_samp",
    "strftime", "string_agg", "string_to_array", "strpos", "strptime", "substr", "sum", "tan",
    "tand", "time", "timestamp", "total", "trunc", "truncate", "unnest", "upper", "var",
    "var_samp", "variance",
];

/// Checks a statement and gives it parsed.
pub(super) fn statement(text: &str) -> Result<Statement, ApiError> {
    tokens(text, "sql")?;
    let mut statements = parser(text)
        .and_then(|mut parser| parser.parse_statements())
        .map_err(|source| unreadable("sql", &source))?;
    let (Some(statement), None) = (statements.pop(), statements.pop()) else {
        return Err(error::refused("sql", "sql must be exactly one statement"));
    };
    visit(&statement, "sql", false)?;
    Ok(statement)
}

/// Checks an expression of a pipeline (`price * 2 AS double`). It names no table and asks none.
pub(super) fn expression(text: &str, param: &str) -> Result<(), ApiError> {
    tokens(text, param)?;
    let mut parser = parser(text).map_err(|source| unreadable(param, &source))?;
    let item = parser.parse_select_item().map_err(|source| unreadable(param, &source))?;
    visit(&item, param, true)
}

fn parser(text: &str) -> Result<Parser<'static>, ParserError> {
    // As polars-sql makes it, so that both read the same tree.
    let options = ParserOptions { trailing_commas: true, ..ParserOptions::default() };
    Parser::new(&GenericDialect).with_options(options).try_with_sql(text)
}

fn unreadable(param: &str, source: &ParserError) -> ApiError {
    let message = match source {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text.clone(),
        ParserError::RecursionLimitExceeded => "it is nested too deeply".to_owned(),
    };
    error::of_text(param, &message)
}

/// Bounds what the parser gets, which goes down one step for each bracket.
fn tokens(text: &str, param: &str) -> Result<(), ApiError> {
    let tokens = Tokenizer::new(&GenericDialect, text)
        .tokenize()
        .map_err(|source| error::of_text(param, &source.to_string()))?;
    let is_word = |token: &&Token| !matches!(token, Token::Whitespace(_));
    let count = tokens.iter().filter(is_word).count();
    if count > TOKENS_MAX {
        let message = format!("{param} has {count} tokens; the limit is {TOKENS_MAX}");
        return Err(error::refused(param, message));
    }
    let mut deep: usize = 0;
    for token in &tokens {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the tokens of another crate")]
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => deep += 1,
            Token::RParen | Token::RBracket | Token::RBrace => deep = deep.saturating_sub(1),
            _ => {}
        }
        if deep > BRACKETS_DEEP_MAX {
            let message = format!("{param} has brackets nested over {BRACKETS_DEEP_MAX} deep");
            return Err(error::refused(param, message));
        }
    }
    Ok(())
}

fn visit(tree: &impl Visit, param: &str, expression_only: bool) -> Result<(), ApiError> {
    let mut checker = Checker { deep: 0, parts: 0, expression_only };
    match tree.visit(&mut checker) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(what) => Err(error::refused(param, format!("{param}: {what}"))),
    }
}

struct Checker {
    deep: usize,
    parts: usize,
    expression_only: bool,
}

/// Stops the visit with what is not allowed.
fn stop(what: impl Into<String>) -> ControlFlow<String> {
    ControlFlow::Break(what.into())
}

impl Checker {
    fn part(&mut self) -> ControlFlow<String> {
        self.parts += 1;
        if self.parts > PARTS_MAX {
            return stop(format!("it has over {PARTS_MAX} SELECTs and tables in FROM"));
        }
        ControlFlow::Continue(())
    }
}

impl Visitor for Checker {
    type Break = String;

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<String> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "all that is not listed is refused")]
        match statement {
            Statement::Query(_) => ControlFlow::Continue(()),
            Statement::Explain { statement, analyze: false, .. }
                if matches!(**statement, Statement::Query(_)) =>
            {
                ControlFlow::Continue(())
            }
            _ => stop("only SELECT, WITH and EXPLAIN (without ANALYZE) are taken"),
        }
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<String> {
        if self.expression_only {
            return stop("an expression must not hold a query");
        }
        let plain = query.locks.is_empty()
            && query.for_clause.is_none()
            && query.settings.is_none()
            && query.format_clause.is_none()
            && query.pipe_operators.is_empty();
        if !plain {
            return stop("FOR, SETTINGS, FORMAT, locks and pipes are not taken");
        }
        set_expression(&query.body)
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<String> {
        self.part()?;
        if select.into.is_some() {
            return stop("SELECT INTO is not taken");
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, name: &ObjectName) -> ControlFlow<String> {
        if name.0.len() == 1 { ControlFlow::Continue(()) } else { stop(not_a_table(name)) }
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<String> {
        self.part()?;
        #[expect(clippy::wildcard_enum_match_arm, reason = "all that is not listed is refused")]
        match factor {
            TableFactor::Table { name, args: Some(_), .. } => {
                stop(format!("the table function {name}() is not taken: name a table"))
            }
            TableFactor::Table { args: None, with_hints, version: None, sample: None, .. }
                if with_hints.is_empty() =>
            {
                ControlFlow::Continue(())
            }
            TableFactor::Derived { sample: None, .. }
            | TableFactor::NestedJoin { .. }
            | TableFactor::UNNEST { .. } => ControlFlow::Continue(()),
            _ => stop("FROM takes tables, queries in brackets, joins and UNNEST"),
        }
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<String> {
        self.deep += 1;
        if self.deep > EXPRESSIONS_DEEP_MAX {
            return stop(format!("expressions are nested over {EXPRESSIONS_DEEP_MAX} deep"));
        }
        if let Expr::Function(function) = expr {
            let name = function.name.to_string().to_ascii_lowercase();
            if FUNCTIONS.binary_search(&name.as_str()).is_err() {
                return stop(format!("the function {name}() is not one of those that are taken"));
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, _expr: &Expr) -> ControlFlow<String> {
        self.deep = self.deep.saturating_sub(1);
        ControlFlow::Continue(())
    }
}

fn set_expression(body: &SetExpr) -> ControlFlow<String> {
    match body {
        SetExpr::Select(_) | SetExpr::Values(_) => ControlFlow::Continue(()),
        // Visited as a query of its own.
        SetExpr::Query(_) => ControlFlow::Continue(()),
        SetExpr::SetOperation { left, right, .. } => {
            set_expression(left)?;
            set_expression(right)
        }
        SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
            stop("INSERT, UPDATE, DELETE and MERGE are not taken")
        }
        SetExpr::Table(_) => stop("TABLE is not taken: SELECT * FROM it"),
    }
}

fn not_a_table(name: &ObjectName) -> String {
    format!("{name} is not the name of a table: it has more than one part")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_functions_are_in_order_for_the_search() {
        assert!(FUNCTIONS.is_sorted());
    }
}
