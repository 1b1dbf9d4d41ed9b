//! An incremental reader of server-sent events (WHATWG HTML, section 9.2). Bytes in, in pieces of
//! any size; events out. It knows neither HTTP nor what the events mean.

/// One event, its field names and data joined as the specification says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frame {
    /// `event:`; empty when the server gave none.
    pub event: String,
    /// `data:` lines, joined by line feeds.
    pub data: String,
    /// The last `id:` up to here, this event's included.
    pub id: Option<String>,
}

/// The stream is not one that this reader takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an event has more than {limit_bytes} bytes")]
pub struct TooLong {
    /// Bytes that are taken.
    pub limit_bytes: usize,
}

/// Bytes of one event: a result with the log-probabilities of a long completion fits.
pub const EVENT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The reader's state between two pieces.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    frame: Frame,
    has_data: bool,
    last_id: Option<String>,
    after_return: bool,
    past_first_line: bool,
}

impl Parser {
    /// Takes the next piece and adds the events that it completes to `frames`.
    ///
    /// # Errors
    /// When a line or an event is longer than [`EVENT_BYTES_MAX`]; nothing more can be read then.
    pub fn push(&mut self, bytes: &[u8], frames: &mut Vec<Frame>) -> Result<(), TooLong> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if std::mem::take(&mut self.after_return) && rest[0] == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                return self.keep(rest);
            };
            self.keep(&rest[..end])?;
            self.after_return = rest[end] == b'\r';
            rest = &rest[end + 1..];
            let line = std::mem::take(&mut self.line);
            self.line_ended(&line, frames);
        }
        Ok(())
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        if self.line.len() + self.frame.data.len() + bytes.len() > EVENT_BYTES_MAX {
            return Err(TooLong { limit_bytes: EVENT_BYTES_MAX });
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn line_ended(&mut self, line: &[u8], frames: &mut Vec<Frame>) {
        let line = if self.past_first_line {
            line
        } else {
            line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line)
        };
        self.past_first_line = true;
        if line.is_empty() {
            self.dispatch(frames);
            return;
        }
        let line = String::from_utf8_lossy(line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.frame.event),
            "data" => {
                if self.has_data {
                    self.frame.data.push('\n');
                }
                self.has_data = true;
                self.frame.data.push_str(value);
            }
            "id" if !value.contains('\0') => self.last_id = Some(value.to_owned()),
            // A comment (empty field name) keeps the connection alive; `retry` is the caller's own.
            _ => {}
        }
    }

    fn dispatch(&mut self, frames: &mut Vec<Frame>) {
        let mut frame = std::mem::take(&mut self.frame);
        if std::mem::take(&mut self.has_data) {
            frame.id.clone_from(&self.last_id);
            frames.push(frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(pieces: &[&[u8]]) -> Vec<Frame> {
        let (mut parser, mut frames) = (Parser::default(), Vec::new());
        for piece in pieces {
            parser.push(piece, &mut frames).unwrap();
        }
        frames
    }

    fn frame(event: &str, data: &str, id: Option<&str>) -> Frame {
        Frame { event: event.into(), data: data.into(), id: id.map(str::to_owned) }
    }

    #[test]
    fn fields_comments_and_line_ends() {
        let text = b"\xEF\xBB\xBF: keep-alive\n\nid: 1\nevent: state\ndata: a\r\ndata:  b\r\r\
            data\n\nevent: lost\n\nid: 2\n\ndata:c\nretry: 5\nother: x\n\n\
            event: open\ndata: no end";
        let expect = [
            frame("state", "a\n b", Some("1")),
            frame("", "", Some("1")),
            frame("", "c", Some("2")),
        ];
        assert_eq!(parse(&[text]), expect);
    }

    #[test]
    fn an_endless_line_is_refused() {
        let (mut parser, mut frames) = (Parser::default(), Vec::new());
        let piece = vec![b'a'; 1024 * 1024];
        let refused = (0..64).find_map(|_| parser.push(&piece, &mut frames).err());
        assert_eq!(refused, Some(TooLong { limit_bytes: EVENT_BYTES_MAX }));
    }

    #[test]
    fn an_endless_event_of_short_lines_is_refused() {
        let (mut parser, mut frames) = (Parser::default(), Vec::new());
        let line = format!("data: {}\n", "a".repeat(1024 * 1024));
        let refused = (0..64).find_map(|_| parser.push(line.as_bytes(), &mut frames).err());
        assert!(refused.is_some() && frames.is_empty());
    }

    const LINE: &str = "(data|event|id|:)?[:]? ?[a-zé€\u{1F600}]{0,6}";

    proptest! {
        /// Where the network cuts the stream changes nothing.
        #[test]
        fn any_cut_gives_the_same_events(
            lines in proptest::collection::vec(LINE, 0..24),
            ends in proptest::collection::vec(prop_oneof!["\n", "\r", "\r\n"], 24),
            cuts in proptest::collection::vec(0_usize..400, 0..12),
        ) {
            let mut text = String::new();
            for (line, end) in lines.iter().zip(&ends) {
                text.push_str(line);
                text.push_str(end);
            }
            text.push_str("\n\n");
            let bytes = text.as_bytes();
            let whole = parse(&[bytes]);
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            prop_assert_eq!(&parse(&pieces), &whole);
            let single: Vec<_> = bytes.chunks(1).collect();
            prop_assert_eq!(&parse(&single), &whole);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..2048),
        ) {
            let _ = parse(&[&bytes]);
        }
    }
}
