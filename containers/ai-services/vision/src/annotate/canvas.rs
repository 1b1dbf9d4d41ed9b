//! Lines, dots and words on a picture. Places are those of the analysed picture; what lies outside
//! is cut off.

use aisemble_protocol::v1;

use super::font;
use crate::picture::Picture;

/// Red, green, blue.
pub(super) type Color = [u8; 3];

/// Pixels of the picture's shorter side for each pixel of a line's thickness.
const SIDE_PER_THICKNESS: usize = 240;
/// Pixels around a word, in the font's pixels.
const MARGIN: usize = 1;

/// A picture that is drawn on.
#[derive(Debug)]
pub(super) struct Canvas {
    picture: Picture,
    /// Its pixels for one of the analysed picture.
    factor: f32,
    /// Of lines; also how large the font's pixels are.
    thickness: usize,
}

impl Canvas {
    pub(super) fn new(picture: Picture, factor: f32) -> Self {
        let thickness = (picture.width.min(picture.height) / SIDE_PER_THICKNESS).clamp(1, 6);
        Self { picture, factor, thickness }
    }

    pub(super) fn into_picture(self) -> Picture {
        self.picture
    }

    /// A box with a word above it, or inside when there is no room above.
    pub(super) fn labelled(&mut self, bounds: &v1::Box, label: &str, color: Color) {
        let corner = |x, y| v1::Point { x, y };
        self.outline(
            &[
                corner(bounds.left, bounds.top),
                corner(bounds.right, bounds.top),
                corner(bounds.right, bounds.bottom),
                corner(bounds.left, bounds.bottom),
            ],
            color,
        );
        let (left, top) = self.place(&corner(bounds.left, bounds.top));
        let height = self.word_height() as i64;
        let top = if top >= height { top - height } else { top };
        self.word((left, top), label, color);
    }

    /// A word in the upper left corner, the `row`-th one.
    pub(super) fn corner(&mut self, row: usize, label: &str, color: Color) {
        self.word((0, (row * self.word_height()) as i64), label, color);
    }

    /// Lines from each point to the next and back to the first.
    pub(super) fn outline(&mut self, points: &[v1::Point], color: Color) {
        for (index, point) in points.iter().enumerate() {
            let next = &points[(index + 1) % points.len()];
            let (from, to) = (self.place(point), self.place(next));
            self.line(from, to, color);
        }
    }

    /// A dot.
    pub(super) fn dot(&mut self, point: &v1::Point, color: Color) {
        let (x, y) = self.place(point);
        let radius = self.thickness as i64;
        self.fill((x - radius, y - radius), 2 * self.thickness + 1, 2 * self.thickness + 1, color);
    }

    /// A place on the canvas, not far outside.
    fn place(&self, point: &v1::Point) -> (i64, i64) {
        let within = |value: f32, size: usize| {
            let value = if value.is_nan() { 0.0 } else { value * self.factor };
            value.clamp(0.0, size.saturating_sub(1) as f32) as i64
        };
        (within(point.x, self.picture.width), within(point.y, self.picture.height))
    }

    /// Both ends are inside, so there are no more steps than the picture has pixels across.
    fn line(&mut self, from: (i64, i64), to: (i64, i64), color: Color) {
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let steps = dx.abs().max(dy.abs()).max(1);
        let half = self.thickness as i64 / 2;
        for step in 0..=steps {
            let (x, y) = (from.0 + dx * step / steps, from.1 + dy * step / steps);
            self.fill((x - half, y - half), self.thickness, self.thickness, color);
        }
    }

    fn fill(&mut self, (left, top): (i64, i64), width: usize, height: usize, color: Color) {
        let range = |from: i64, length: usize, size: usize| {
            let end = (from + length as i64).clamp(0, size as i64) as usize;
            (from.clamp(0, size as i64) as usize)..end
        };
        let columns = range(left, width, self.picture.width);
        for y in range(top, height, self.picture.height) {
            let row = y * self.picture.width;
            let pixels = &mut self.picture.rgb[(row + columns.start) * 3..(row + columns.end) * 3];
            for pixel in pixels.chunks_exact_mut(3) {
                pixel.copy_from_slice(&color);
            }
        }
    }

    fn word_height(&self) -> usize {
        (font::HEIGHT + 2 * MARGIN) * self.thickness
    }

    /// White or black letters on a ground of the colour.
    fn word(&mut self, (left, top): (i64, i64), word: &str, color: Color) {
        let letters = word.chars().count();
        let width = (letters * font::ADVANCE + 2 * MARGIN) * self.thickness;
        self.fill((left, top), width, self.word_height(), color);
        let [r, g, b] = color.map(u32::from);
        let ink = if r * 3 + g * 6 + b > 1275 { [0; 3] } else { [255; 3] };
        let dot = self.thickness as i64;
        for (index, letter) in word.chars().enumerate() {
            let first = left + ((index * font::ADVANCE + MARGIN) * self.thickness) as i64;
            if first >= self.picture.width as i64 {
                break;
            }
            for (row, bits) in font::glyph(letter).into_iter().enumerate() {
                for column in 0..font::WIDTH {
                    if bits >> (font::WIDTH - 1 - column) & 1 == 1 {
                        let x = first + column as i64 * dot;
                        let y = top + (row + MARGIN) as i64 * dot;
                        self.fill((x, y), self.thickness, self.thickness, ink);
                    }
                }
            }
        }
    }
}
