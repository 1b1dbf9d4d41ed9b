//! How many frames an animation has, without decoding one: a walk over the blocks of the file,
//! which may be anything.

/// Frames that are counted at most; a longer animation is said to have this many.
const FRAMES_MAX: usize = 10_000;

/// Frames of a GIF, WebP or PNG file, pages of a TIFF; 1 for other formats, and for what cannot be
/// followed to its end what was seen of it.
#[must_use]
pub fn frames(format: &str, bytes: &[u8]) -> usize {
    match format {
        "gif" => gif(bytes),
        "webp" => webp(bytes),
        "png" => png(bytes),
        "tiff" => tiff(bytes),
        _ => 1,
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn gif(bytes: &[u8]) -> usize {
    let mut frames = 0;
    let colors = |flags: u8| if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) };
    let Some([flags]) = array(bytes, 10) else { return 0 };
    let mut at = 13 + colors(flags);
    while frames < FRAMES_MAX {
        let begin = match array(bytes, at) {
            Some([0x21]) => at + 2,
            Some([0x2c]) => {
                let Some([flags]) = array(bytes, at + 9) else { return frames };
                frames += 1;
                // The descriptor, the colours of this frame, the size of the codes.
                at + 10 + colors(flags) + 1
            }
            Some(_) | None => return frames,
        };
        let Some(end) = after_sub_blocks(bytes, begin) else { return frames };
        at = end;
    }
    frames
}

fn after_sub_blocks(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let [length] = array(bytes, at)?;
        at += 1 + usize::from(length);
        if length == 0 {
            return Some(at);
        }
    }
}

fn webp(bytes: &[u8]) -> usize {
    let (mut at, mut frames) = (12, 0);
    while let (Some(kind), Some(length)) = (array::<4>(bytes, at), array(bytes, at + 4)) {
        frames += usize::from(&kind == b"ANMF");
        let length = u32::from_le_bytes(length) as usize;
        at = at.saturating_add(8).saturating_add(length).saturating_add(length % 2);
        if frames == FRAMES_MAX {
            break;
        }
    }
    frames.max(1)
}

fn png(bytes: &[u8]) -> usize {
    let mut at = 8;
    while let (Some(length), Some(kind)) = (array(bytes, at), array::<4>(bytes, at + 4)) {
        match &kind {
            b"acTL" => {
                let frames = array(bytes, at + 8).map_or(1, u32::from_be_bytes);
                return (frames as usize).clamp(1, FRAMES_MAX);
            }
            // An animation is told before the first pixels.
            b"IDAT" => break,
            _ => at = at.saturating_add(12).saturating_add(u32::from_be_bytes(length) as usize),
        }
    }
    1
}

fn tiff(bytes: &[u8]) -> usize {
    let little = bytes.starts_with(b"II");
    let u16_at = |at| {
        array(bytes, at)
            .map(|two| if little { u16::from_le_bytes(two) } else { u16::from_be_bytes(two) })
    };
    let u32_at = |at| {
        array(bytes, at)
            .map(|four| if little { u32::from_le_bytes(four) } else { u32::from_be_bytes(four) })
    };
    if u16_at(2) != Some(42) {
        // BigTIFF; nobody has many pages in one.
        return 1;
    }
    let (mut next, mut pages) = (u32_at(4), 0);
    while let Some(at) = next.filter(|at| *at != 0 && pages < FRAMES_MAX) {
        let at = at as usize;
        let Some(entries) = u16_at(at) else { break };
        pages += 1;
        next = u32_at(at.saturating_add(2 + 12 * usize::from(entries)));
    }
    pages.max(1)
}
