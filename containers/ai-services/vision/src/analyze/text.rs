//! Reading text: the lines that were found are cut out and read, the likely ones are kept.

use aisemble_protocol::v1;

use crate::catalog::Catalog;
use crate::compute::Map;
use crate::models::{Craft, Crnn, Line, Network, lines};
use crate::picture::Picture;
use crate::serving::{Input, Row};

/// Lines of a picture that are read at most.
const LINES_MAX: usize = 512;
/// Columns of all lines together, 64 rows each.
const COLUMNS_MAX: usize = 512 * 512;

/// Lines that are to be read.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) lines: Vec<Line>,
    pub(super) rows: Vec<Row>,
    /// Lines that are over a limit.
    pub(super) left_out: usize,
}

/// The lines of a picture as rows for the model that reads. `out` is what the model that finds
/// gave, `scale` how it saw the picture.
pub(super) fn find(picture: &Picture, out: &Map, scale: f32, reads: usize) -> Found {
    let grey = picture.grey();
    let (mut found, mut columns) = (Found::default(), 0);
    for line in lines(&Craft::interpret(out, scale)) {
        let Some(input) = Crnn::prepare(picture, &grey, &line) else { continue };
        columns += input.w;
        if found.rows.len() == LINES_MAX || columns > COLUMNS_MAX {
            found.left_out += 1;
            continue;
        }
        found.lines.push(line);
        found.rows.push(Row { model: reads, input: Input::Picture(input) });
    }
    found
}

/// What the lines say. `outputs` has one a line.
#[expect(clippy::too_many_arguments, reason = "what a picture's lines need, once")]
pub(super) fn read(
    catalog: &Catalog,
    reads: usize,
    lines: &[Line],
    outputs: &[Vec<Map>],
    score_min: f32,
    picture: &Picture,
) -> v1::ImageText {
    let Network::Crnn(network) = &catalog.models()[reads].network else {
        return v1::ImageText::default();
    };
    let inside = |(x, y): (f32, f32)| v1::Point {
        x: x.clamp(0.0, picture.width as f32),
        y: y.clamp(0.0, picture.height as f32),
    };
    let mut found = Vec::new();
    for (line, outputs) in lines.iter().zip(outputs) {
        let Some(out) = outputs.first() else { continue };
        let said = network.interpret(out);
        let text = said.text.trim();
        if text.is_empty() || said.score < score_min {
            continue;
        }
        let (left, top, right, bottom) = line.bounds();
        let (upper, lower) = (inside((left, top)), inside((right, bottom)));
        found.push(v1::TextLine {
            text: text.to_owned(),
            score: said.score,
            r#box: Some(v1::Box { left: upper.x, top: upper.y, right: lower.x, bottom: lower.y }),
            outline: line.corners.map(inside).to_vec(),
        });
    }
    let text: Vec<&str> = found.iter().map(|line| &*line.text).collect();
    v1::ImageText { text: text.join("\n"), lines: found }
}
