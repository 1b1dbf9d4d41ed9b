//! From words to lines: which boxes stand beside each other and are read as one, and in which
//! order lines are read. The rules and numbers are EasyOCR's (`group_text_box`), whose detector and
//! recogniser these are.

use super::text_boxes::TextBox;

/// A box steeper than this (rise over run) is read on its own, turned upright.
const SLOPE_MAX: f32 = 0.1;
/// Boxes are in one row when their middles differ by less than this share of their heights.
const ROW_SHARE: f32 = 0.5;
/// Of one line, heights differ by less than this share...
const HEIGHT_SHARE: f32 = 0.5;
/// ... and gaps are less than this share of the height.
const GAP_SHARE: f32 = 0.5;
/// What is added around a line, as a share of its height.
const MARGIN_SHARE: f32 = 0.1;
/// Lines whose longer side is not above this many pixels are not read.
const SIDE_MIN: f32 = 20.0;

/// A line to read: four corners, clockwise from the text's upper left, in pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    /// x and y of each.
    pub corners: [(f32, f32); 4],
    /// Whether its sides are those of the picture.
    pub upright: bool,
}

impl Line {
    fn upright(left: f32, right: f32, top: f32, bottom: f32) -> Self {
        let corners = [(left, top), (right, top), (right, bottom), (left, bottom)];
        Self { corners, upright: true }
    }

    /// Left, upper, right and lower end.
    #[must_use]
    pub fn bounds(&self) -> (f32, f32, f32, f32) {
        self.corners.iter().fold((f32::MAX, f32::MAX, f32::MIN, f32::MIN), |bounds, (x, y)| {
            (bounds.0.min(*x), bounds.1.min(*y), bounds.2.max(*x), bounds.3.max(*y))
        })
    }
}

/// A box whose sides are nearly those of the picture.
#[derive(Debug, Clone, Copy)]
struct Level {
    left: f32,
    right: f32,
    top: f32,
    bottom: f32,
}

impl Level {
    fn middle(&self) -> f32 {
        (self.top + self.bottom) / 2.0
    }

    fn height(&self) -> f32 {
        self.bottom - self.top
    }
}

/// The lines that the words make up, in reading order: rows from the top, in a row from the left.
#[must_use]
pub fn lines(words: &[TextBox]) -> Vec<Line> {
    let (mut level, mut slanting) = (Vec::new(), Vec::new());
    for word in words {
        let corners = word.corners.map(|(x, y)| (x.trunc(), y.trunc()));
        match level_of(&corners) {
            Some(found) => level.push(found),
            None => slanting.push(with_margin(corners)),
        }
    }
    level.sort_by(|a, b| a.middle().total_cmp(&b.middle()));
    let mut found: Vec<Line> = rows(level).into_iter().flat_map(merge).collect();
    found.extend(slanting);
    found.retain(|line| {
        let (left, top, right, bottom) = line.bounds();
        (right - left).max(bottom - top) > SIDE_MIN
    });
    reading_order(found)
}

fn level_of(corners: &[(f32, f32); 4]) -> Option<Level> {
    let [a, b, c, d] = *corners;
    let slope = |from: (f32, f32), to: (f32, f32)| (to.1 - from.1) / (to.0 - from.0).max(10.0);
    if slope(a, b).abs().max(slope(d, c).abs()) >= SLOPE_MAX {
        return None;
    }
    let (left, top, right, bottom) = Line { corners: *corners, upright: true }.bounds();
    Some(Level { left, right, top, bottom })
}

/// A slanting box with its margin: each corner goes outwards along its diagonal.
fn with_margin(corners: [(f32, f32); 4]) -> Line {
    let [a, b, c, d] = corners;
    let distance = |a: (f32, f32), b: (f32, f32)| (a.0 - b.0).hypot(a.1 - b.1);
    let margin = (1.44 * MARGIN_SHARE * distance(a, b).min(distance(a, d))).trunc();
    let outwards = |from: (f32, f32), corner: (f32, f32)| {
        let length = distance(from, corner).max(1.0);
        let step = margin / length;
        (corner.0 + (corner.0 - from.0) * step, corner.1 + (corner.1 - from.1) * step)
    };
    let corners = [outwards(c, a), outwards(d, b), outwards(a, c), outwards(b, d)];
    Line { corners, upright: false }
}

fn mean(values: impl ExactSizeIterator<Item = f32>) -> f32 {
    let count = values.len() as f32;
    values.sum::<f32>() / count
}

/// Boxes sorted by their middles, as rows.
fn rows(level: Vec<Level>) -> Vec<Vec<Level>> {
    let mut rows: Vec<Vec<Level>> = Vec::new();
    for found in level {
        match rows.last_mut() {
            Some(row)
                if (mean(row.iter().map(Level::middle)) - found.middle()).abs()
                    < ROW_SHARE * mean(row.iter().map(Level::height)) =>
            {
                row.push(found);
            }
            Some(_) | None => rows.push(vec![found]),
        }
    }
    rows
}

/// The lines of one row.
fn merge(mut row: Vec<Level>) -> Vec<Line> {
    row.sort_by(|a, b| a.left.total_cmp(&b.left));
    let mut groups: Vec<Vec<Level>> = Vec::new();
    for found in row {
        if let Some(group) = groups.last_mut()
            && let Some(last) = group.last()
        {
            let height = mean(group.iter().map(Level::height));
            let alike = (height - found.height()).abs() < HEIGHT_SHARE * height;
            if alike && found.left - last.right < GAP_SHARE * found.height() {
                group.push(found);
                continue;
            }
        }
        groups.push(vec![found]);
    }
    groups.iter().map(|group| joined(group)).collect()
}

fn joined(group: &[Level]) -> Line {
    let least = |of: fn(&Level) -> f32| group.iter().map(of).fold(f32::MAX, f32::min);
    let most = |of: fn(&Level) -> f32| group.iter().map(of).fold(f32::MIN, f32::max);
    let (left, right) = (least(|l| l.left), most(|l| l.right));
    let (top, bottom) = (least(|l| l.top), most(|l| l.bottom));
    let margin = (MARGIN_SHARE * (right - left).min(bottom - top)).trunc();
    Line::upright(left - margin, right + margin, top - margin, bottom + margin)
}

/// Rows from the top, lines of a row from the left.
fn reading_order(mut lines: Vec<Line>) -> Vec<Line> {
    let middle = |line: &Line| {
        let (_, top, _, bottom) = line.bounds();
        (top + bottom) / 2.0
    };
    lines.sort_by(|a, b| middle(a).total_cmp(&middle(b)));
    let mut rows: Vec<Vec<Line>> = Vec::new();
    for line in lines {
        let (_, top, _, bottom) = line.bounds();
        match rows.last_mut() {
            Some(row)
                if (mean(row.iter().map(middle)) - middle(&line)).abs()
                    < ROW_SHARE * (bottom - top) =>
            {
                row.push(line);
            }
            Some(_) | None => rows.push(vec![line]),
        }
    }
    for row in &mut rows {
        row.sort_by(|a, b| a.bounds().0.total_cmp(&b.bounds().0));
    }
    rows.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(left: f32, top: f32, right: f32, bottom: f32) -> TextBox {
        TextBox { corners: [(left, top), (right, top), (right, bottom), (left, bottom)] }
    }

    #[test]
    fn words_beside_each_other_are_a_line_and_lines_are_read_in_order() {
        let words = [
            word(100.0, 52.0, 180.0, 72.0),
            word(10.0, 10.0, 60.0, 30.0),
            word(300.0, 11.0, 360.0, 31.0),
            word(65.0, 12.0, 120.0, 32.0),
            word(10.0, 50.0, 95.0, 70.0),
            word(10.0, 90.0, 20.0, 100.0),
        ];
        let found: Vec<_> = lines(&words).iter().map(Line::bounds).collect();
        // The first line's words are one, the far one stands alone, the last is too small to read.
        assert_eq!(
            found,
            [(8.0, 8.0, 122.0, 34.0), (298.0, 9.0, 362.0, 33.0), (8.0, 48.0, 182.0, 74.0),]
        );
    }

    #[test]
    fn a_slanting_word_is_read_on_its_own() {
        let slanting =
            TextBox { corners: [(10.0, 40.0), (90.0, 10.0), (97.0, 30.0), (17.0, 60.0)] };
        let found = lines(&[slanting, word(10.0, 100.0, 100.0, 120.0)]);
        assert_eq!(found.iter().map(|line| line.upright).collect::<Vec<_>>(), [false, true]);
        let (left, top, right, bottom) = found[0].bounds();
        assert!(left < 10.0 && top < 10.0 && right > 97.0 && bottom > 60.0);
    }

    #[test]
    fn nothing_and_nonsense_give_nothing() {
        assert!(lines(&[]).is_empty());
        let nonsense = TextBox { corners: [(f32::NAN, f32::INFINITY); 4] };
        let _survived = lines(&[nonsense, nonsense]);
    }
}
