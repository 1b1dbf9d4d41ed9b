//! One call as a JSON object that comes character by character: its name, and its arguments as the
//! model wrote them. It must not know what stands around the object.

/// What has become certain of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// It begins: the function's name.
    Name(String),
    /// Its arguments, or more of them, as the model wrote them.
    Arguments(String),
}

/// How far an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    GoesOn,
    Done,
    /// It is no call, or no more of one.
    Broken,
}

/// An object under way.
#[derive(Debug, Clone)]
pub(super) struct CallObject {
    slot: Slot,
    /// The key or value that is being read; not of arguments that are an object.
    current: String,
    nesting: Nesting,
    name: Option<String>,
    /// Arguments that have not been told, and whether there are any.
    arguments: String,
    has_arguments: bool,
    begun: bool,
    /// The object is the arguments, and the name is known from elsewhere.
    bare: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Start,
    Key,
    InKey,
    Colon(Field),
    Before(Field),
    Within(Field),
    InArguments,
    After,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Name,
    Arguments,
    Other,
}

/// How deep in a JSON value the last character was.
#[derive(Debug, Clone, Copy, Default)]
struct Nesting {
    depth: usize,
    in_text: bool,
    escaped: bool,
}

impl Nesting {
    /// Takes a character in; whether a text, list or object has ended with it. Literals never do.
    fn ends_with(&mut self, character: char) -> bool {
        if self.in_text {
            match character {
                _ if self.escaped => self.escaped = false,
                '\\' => self.escaped = true,
                '"' => self.in_text = false,
                _ => {}
            }
            return !self.in_text && self.depth == 0;
        }
        match character {
            '"' => self.in_text = true,
            '{' | '[' => self.depth += 1,
            '}' | ']' => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }
}

impl CallObject {
    /// Before its first `{`.
    pub(super) fn new() -> Self {
        Self {
            slot: Slot::Start,
            current: String::new(),
            nesting: Nesting::default(),
            name: None,
            arguments: String::new(),
            has_arguments: false,
            begun: false,
            bare: false,
        }
    }

    /// Of a function whose name is known: the object is its arguments.
    pub(super) fn arguments_of(name: String) -> Self {
        Self { slot: Slot::Before(Field::Arguments), name: Some(name), bare: true, ..Self::new() }
    }

    /// Whether something of it has been told.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Takes the next character in and tells what has become certain.
    pub(super) fn feed(&mut self, character: char, parts: &mut Vec<Part>) -> Progress {
        let space = character.is_whitespace();
        match self.slot {
            Slot::Start if character == '{' => self.to(Slot::Key),
            Slot::Key if character == '"' => {
                self.current.clear();
                self.nesting = Nesting { in_text: true, ..Nesting::default() };
                self.to(Slot::InKey)
            }
            Slot::InKey if self.nesting.ends_with(character) => self.key(),
            Slot::InKey => {
                self.current.push(character);
                Progress::GoesOn
            }
            Slot::Colon(field) if character == ':' => self.to(Slot::Before(field)),
            Slot::Before(field) if !space => self.value(field, character, parts),
            Slot::Within(field) => self.within(field, character, parts),
            Slot::InArguments => self.argument(character, parts),
            Slot::After if character == ',' => self.to(Slot::Key),
            Slot::Key | Slot::After if character == '}' => self.end(parts),
            Slot::Key | Slot::Colon(_) | Slot::Before(_) | Slot::After if space => Progress::GoesOn,
            Slot::Start | Slot::Key | Slot::Colon(_) | Slot::Before(_) | Slot::After => {
                Progress::Broken
            }
        }
    }

    fn to(&mut self, slot: Slot) -> Progress {
        self.slot = slot;
        Progress::GoesOn
    }

    fn key(&mut self) -> Progress {
        let field = match self.current.as_str() {
            "name" if self.name.is_none() => Field::Name,
            "arguments" | "parameters" if !self.has_arguments => Field::Arguments,
            "type" | "id" => Field::Other,
            // Once a call has begun there is no way back; before, this is some other JSON.
            _ if self.begun => Field::Other,
            _ => return Progress::Broken,
        };
        self.to(Slot::Colon(field))
    }

    fn value(&mut self, field: Field, first: char, parts: &mut Vec<Part>) -> Progress {
        self.current.clear();
        self.nesting = Nesting::default();
        match field {
            Field::Arguments if first == '{' => {
                self.has_arguments = true;
                self.slot = Slot::InArguments;
                self.argument(first, parts)
            }
            Field::Arguments if self.bare || !matches!(first, '"' | 'n') => Progress::Broken,
            Field::Name if first != '"' => Progress::Broken,
            Field::Arguments | Field::Name | Field::Other => {
                self.slot = Slot::Within(field);
                self.within(field, first, parts)
            }
        }
    }

    fn within(&mut self, field: Field, character: char, parts: &mut Vec<Part>) -> Progress {
        let literal = self.nesting.depth == 0 && !self.nesting.in_text && !self.current.is_empty();
        if literal && (matches!(character, ',' | '}') || character.is_whitespace()) {
            // A literal ends before what follows it, which counts too.
            return match self.complete(field, parts) {
                Progress::GoesOn => self.feed(character, parts),
                ended @ (Progress::Done | Progress::Broken) => ended,
            };
        }
        self.current.push(character);
        if self.nesting.ends_with(character) {
            return self.complete(field, parts);
        }
        Progress::GoesOn
    }

    /// A character of arguments that are an object.
    fn argument(&mut self, character: char, parts: &mut Vec<Part>) -> Progress {
        let ended = self.nesting.ends_with(character);
        self.arguments.push(character);
        self.tell(parts);
        match (ended, self.bare) {
            (false, _) => Progress::GoesOn,
            (true, false) => self.to(Slot::After),
            (true, true) => Progress::Done,
        }
    }

    /// A value other than arguments that are an object.
    fn complete(&mut self, field: Field, parts: &mut Vec<Part>) -> Progress {
        let text = serde_json::from_str::<String>(&self.current).ok();
        match field {
            Field::Other => {}
            Field::Name => match text {
                Some(name) => self.name = Some(name),
                None => return Progress::Broken,
            },
            Field::Arguments => {
                let arguments = match text {
                    Some(text) => Some(text).filter(|text| text.trim_start().starts_with('{')),
                    None => (self.current == "null").then(|| "{}".to_owned()),
                };
                let Some(arguments) = arguments else { return Progress::Broken };
                (self.arguments, self.has_arguments) = (arguments, true);
            }
        }
        self.tell(parts);
        self.to(Slot::After)
    }

    /// Tells what is known, once the name and some of the arguments are.
    fn tell(&mut self, parts: &mut Vec<Part>) {
        if self.arguments.is_empty() {
            return;
        }
        if !self.begun {
            let Some(name) = &self.name else { return };
            parts.push(Part::Name(name.clone()));
            self.begun = true;
        }
        parts.push(Part::Arguments(std::mem::take(&mut self.arguments)));
    }

    fn end(&mut self, parts: &mut Vec<Part>) -> Progress {
        if !self.has_arguments {
            // A call of something that takes nothing.
            "{}".clone_into(&mut self.arguments);
            self.tell(parts);
        }
        if self.begun { Progress::Done } else { Progress::Broken }
    }
}
