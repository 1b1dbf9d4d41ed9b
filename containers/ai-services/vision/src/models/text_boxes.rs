//! From CRAFT's two maps to boxes around words, as its authors' `getDetBoxes` does it: connected
//! pixels, widened by what the training shrank, in the smallest rectangle of any angle.

use crate::compute::Map;

/// A pixel belongs to a letter above this.
const REGION_MIN: f32 = 0.4;
/// A pixel joins two letters above this.
const AFFINITY_MIN: f32 = 0.4;
/// A word has a pixel above this.
const PEAK_MIN: f32 = 0.7;
/// Pixels of a word at least.
const PIXELS_MIN: usize = 10;
/// A rectangle whose sides differ by no more than this is drawn upright: its angle means nothing.
const SQUARE: f32 = 0.1;
/// Words of a picture at most: the ones that are met first, from the top.
const WORDS_MAX: usize = 2000;

type Point = (f32, f32);

/// A word: four corners, clockwise from the one nearest to the picture's upper left.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TextBox {
    /// x and y of each.
    pub corners: [Point; 4],
}

impl TextBox {
    pub(super) fn scaled(&self, by: f32) -> Self {
        Self { corners: self.corners.map(|(x, y)| (x * by, y * by)) }
    }
}

/// The words of one picture's maps (`1` x `h` x `w` x 2), in pixels of the maps.
pub(super) fn text_boxes(out: &Map) -> Vec<TextBox> {
    let region = |at: usize| out.data[2 * at];
    let joins = |at: usize| out.data[2 * at + 1] > AFFINITY_MIN;
    let pixels = out.h * out.w;
    let mut open: Vec<bool> = (0..pixels).map(|at| region(at) > REGION_MIN || joins(at)).collect();
    let mut boxes = Vec::new();
    for first in 0..pixels {
        if boxes.len() == WORDS_MAX {
            tracing::debug!(words.max = WORDS_MAX, "more words than are looked at");
            break;
        }
        if !open[first] {
            continue;
        }
        let word = connected(&mut open, first, out.w);
        let peak = word.iter().map(|at| region(*at)).fold(f32::MIN, f32::max);
        if word.len() < PIXELS_MIN || peak < PEAK_MIN {
            continue;
        }
        // What only joins letters is no part of them.
        let of_letters = |at: &usize| !(joins(*at) && region(*at) <= REGION_MIN);
        let hull = convex_hull(widened(&word, of_letters, (out.w, out.h)));
        boxes.extend(smallest_rectangle(&hull));
    }
    boxes
}

/// Takes the pixels that are connected with `first` by their sides out of `open`.
fn connected(open: &mut [bool], first: usize, width: usize) -> Vec<usize> {
    open[first] = false;
    let mut word = vec![first];
    let mut next = 0;
    while let Some(&at) = word.get(next) {
        next += 1;
        let column = at % width;
        let left = (column > 0).then(|| at - 1);
        let right = (column + 1 < width).then_some(at + 1);
        let above = at.checked_sub(width);
        let below = Some(at + width).filter(|at| *at < open.len());
        for neighbour in [left, right, above, below].into_iter().flatten() {
            if std::mem::take(&mut open[neighbour]) {
                word.push(neighbour);
            }
        }
    }
    word
}

/// Corners of the word's letters after a dilation by a square whose side depends on how thin the
/// word is. Only the outermost pixels of each row matter to a hull.
fn widened(
    word: &[usize],
    of_letters: impl Fn(&usize) -> bool,
    (width, height): (usize, usize),
) -> Vec<(i64, i64)> {
    let columns = || word.iter().map(|at| at % width);
    let (left, right) = (columns().min().unwrap_or(0), columns().max().unwrap_or(0));
    let rows = || word.iter().map(|at| at / width);
    let (top, bottom) = (rows().min().unwrap_or(0), rows().max().unwrap_or(0));
    let (w, h) = (right - left + 1, bottom - top + 1);
    let thin = (word.len() * w.min(h)) as f64 / (w * h) as f64;
    let grow = (thin.sqrt() * 2.0) as i64;
    // A kernel of `grow + 1` whose anchor is its middle, rounded up.
    let after = (grow + 1) / 2;
    let before = grow - after;
    let mut extent = vec![None::<(usize, usize)>; h];
    for at in word.iter().filter(|at| of_letters(at)) {
        let (row, column) = (at / width - top, at % width);
        let (from, to) = extent[row].unwrap_or((column, column));
        extent[row] = Some((from.min(column), to.max(column)));
    }
    let mut corners = Vec::with_capacity(4 * h);
    let inside = |at: i64, size: usize| at.clamp(0, size as i64 - 1);
    for (row, extent) in extent.into_iter().enumerate() {
        let Some((from, to)) = extent else { continue };
        for y in [(row + top) as i64 - before, (row + top) as i64 + after] {
            for x in [from as i64 - before, to as i64 + after] {
                corners.push((inside(x, width), inside(y, height)));
            }
        }
    }
    corners
}

/// The corners of the convex hull (A. M. Andrew's monotone chain).
fn convex_hull(mut points: Vec<(i64, i64)>) -> Vec<(i64, i64)> {
    points.sort_unstable();
    points.dedup();
    if points.len() < 3 {
        return points;
    }
    let turn = |a: (i64, i64), b: (i64, i64), c: (i64, i64)| {
        (b.0 - a.0) * (c.1 - a.1) - (b.1 - a.1) * (c.0 - a.0)
    };
    let half = |points: &mut dyn Iterator<Item = (i64, i64)>| {
        let mut chain: Vec<(i64, i64)> = Vec::new();
        for point in points {
            while let [.., a, b] = chain[..]
                && turn(a, b, point) <= 0
            {
                chain.pop();
            }
            chain.push(point);
        }
        chain.pop();
        chain
    };
    let mut hull = half(&mut points.iter().copied());
    hull.extend(half(&mut points.iter().rev().copied()));
    hull
}

/// The rectangle of the least area around a hull: one of its sides lies on a side of the hull.
fn smallest_rectangle(hull: &[(i64, i64)]) -> Option<TextBox> {
    let at = |index: usize| hull[index % hull.len()];
    let mut best: Option<(f32, [Point; 4], (f32, f32))> = None;
    for index in 0..hull.len() {
        let (a, b) = (at(index), at(index + 1));
        let (dx, dy) = ((b.0 - a.0) as f32, (b.1 - a.1) as f32);
        let length = dx.hypot(dy);
        if length == 0.0 {
            continue;
        }
        let (ux, uy) = (dx / length, dy / length);
        let along = |(x, y): (i64, i64)| x as f32 * ux + y as f32 * uy;
        let across = |(x, y): (i64, i64)| y as f32 * ux - x as f32 * uy;
        let range = |of: &dyn Fn((i64, i64)) -> f32| {
            hull.iter().fold((f32::MAX, f32::MIN), |(low, high), point| {
                (low.min(of(*point)), high.max(of(*point)))
            })
        };
        let ((l0, l1), (c0, c1)) = (range(&along), range(&across));
        let area = (l1 - l0) * (c1 - c0);
        if best.as_ref().is_none_or(|(smallest, ..)| area < *smallest) {
            let corner = |l: f32, c: f32| (l * ux - c * uy, l * uy + c * ux);
            let corners = [corner(l0, c0), corner(l1, c0), corner(l1, c1), corner(l0, c1)];
            best = Some((area, corners, (l1 - l0, c1 - c0)));
        }
    }
    let (_, corners, (a, b)) = best?;
    let ratio = a.max(b) / (a.min(b) + 1e-5);
    Some(from_upper_left(if (1.0 - ratio).abs() <= SQUARE { upright(hull) } else { corners }))
}

fn upright(hull: &[(i64, i64)]) -> [Point; 4] {
    let first = hull.first().copied().unwrap_or_default();
    let (mut low, mut high) = (first, first);
    for (x, y) in hull {
        low = (low.0.min(*x), low.1.min(*y));
        high = (high.0.max(*x), high.1.max(*y));
    }
    let (l, t, r, b) = (low.0 as f32, low.1 as f32, high.0 as f32, high.1 as f32);
    [(l, t), (r, t), (r, b), (l, b)]
}

/// The same corners, the one with the least x + y first.
fn from_upper_left(corners: [Point; 4]) -> TextBox {
    let sum = |index: usize| corners[index].0 + corners[index].1;
    let first = (0..4).min_by(|a, b| sum(*a).total_cmp(&sum(*b))).unwrap_or(0);
    TextBox { corners: std::array::from_fn(|index| corners[(first + index) % 4]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maps(rows: &[&str]) -> Map {
        let (h, w) = (rows.len(), rows[0].len());
        let value = |c: char| match c {
            '#' => [0.9, 0.0],
            '-' => [0.1, 0.9],
            'o' => [0.5, 0.0],
            _ => [0.0, 0.0],
        };
        let data = rows.iter().flat_map(|row| row.chars().flat_map(value)).collect();
        Map::new((1, h, w, 2), data)
    }

    #[test]
    fn letters_that_are_joined_are_one_word_and_faint_ones_none() {
        let found = text_boxes(&maps(&[
            "..............................",
            "..............................",
            "....####--####......oooo......",
            "....####--####......oooo......",
            "....####--####......oooo......",
            "..............................",
            "...........................#..",
            "..............................",
        ]));
        assert_eq!(found.len(), 1, "{found:?}");
        let corners = found[0].corners;
        // 30 pixels of 10 x 3: widened by int(2 * sqrt(30 * 3 / 30)) = 3, 1 before and 2 after.
        assert_eq!(corners, [(3.0, 1.0), (15.0, 1.0), (15.0, 6.0), (3.0, 6.0)]);
    }

    #[test]
    fn a_slanting_word_has_a_slanting_box() {
        let row = |at: usize| -> String {
            (0..40).map(|x| if x >= at * 3 && x < at * 3 + 12 { '#' } else { '.' }).collect()
        };
        let rows: Vec<String> = (0..10).map(row).collect();
        let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        let found = text_boxes(&maps(&rows));
        assert_eq!(found.len(), 1);
        let [a, b, ..] = found[0].corners;
        let slope = (b.1 - a.1) / (b.0 - a.0);
        assert!((0.2..0.4).contains(&slope), "{found:?}");
    }

    #[test]
    fn empty_and_full_maps_are_survived() {
        assert!(text_boxes(&Map::zeros(1, 0, 0, 2)).is_empty());
        assert!(text_boxes(&Map::zeros(1, 16, 16, 2)).is_empty());
        let mut full = Map::zeros(1, 16, 16, 2);
        full.data.fill(1.0);
        assert_eq!(text_boxes(&full)[0].corners[2], (15.0, 15.0));
        full.data.fill(f32::NAN);
        assert!(text_boxes(&full).is_empty());
    }
}
