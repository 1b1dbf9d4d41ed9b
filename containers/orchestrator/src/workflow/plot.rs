//! Bars as a small SVG that needs nothing else: no script, no font, no colour of the page.

use std::fmt::Write as _;

/// Bars of one plot; what is left is one more.
const BARS_MAX: usize = 12;
/// Characters of a label.
const LABEL_CHARS_MAX: usize = 28;
const BAR_PX: usize = 18;
const LABEL_PX: usize = 190;
const WIDTH_PX: usize = 560;

/// How often each value occurs, the commonest first.
pub(super) fn bars(title: &str, counts: &[(String, u64)]) -> String {
    let mut shown: Vec<(String, u64)> = counts.iter().take(BARS_MAX).cloned().collect();
    let rest: u64 = counts.iter().skip(BARS_MAX).map(|(_, count)| count).sum();
    if rest > 0 {
        shown.push((format!("{} others", counts.len() - BARS_MAX), rest));
    }
    let most = shown.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
    let height = 30 + shown.len() * (BAR_PX + 4);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH_PX}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\" role=\"img\"><title>{0}</title>\
         <text x=\"4\" y=\"16\" font-weight=\"bold\">{0}</text>\n",
        escaped(title)
    );
    let room = (WIDTH_PX - LABEL_PX - 60) as u64;
    for (place, (label, count)) in shown.iter().enumerate() {
        let y = 26 + place * (BAR_PX + 4);
        let (text_y, length) = (y + 13, (room * count / most).max(1));
        let (text_x, count_x) = (LABEL_PX - 6, LABEL_PX as u64 + length + 5);
        let label = escaped(label);
        let _ = writeln!(
            svg,
            "<text x=\"{text_x}\" y=\"{text_y}\" text-anchor=\"end\">{label}</text>\
             <rect x=\"{LABEL_PX}\" y=\"{y}\" width=\"{length}\" height=\"{BAR_PX}\" \
             fill=\"#4878a8\"/><text x=\"{count_x}\" y=\"{text_y}\">{count}</text>"
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// A label as XML has it: short, without what XML would read.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for (place, c) in text.chars().enumerate() {
        if place == LABEL_CHARS_MAX {
            out.push('…');
            break;
        }
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_cannot_break_out_and_are_bounded() {
        let counts: Vec<_> = (0..40_u64).map(|n| (format!("<script>{n}"), 40 - n)).collect();
        let svg = bars("a & b", &counts);
        assert!(!svg.contains("<script>") && svg.contains("a &amp; b"), "{svg}");
        assert_eq!(svg.matches("<rect").count(), BARS_MAX + 1);
        assert!(svg.contains("28 others") && svg.len() < 8_000);
        assert!(bars("empty", &[]).ends_with("</svg>\n"));
    }
}
