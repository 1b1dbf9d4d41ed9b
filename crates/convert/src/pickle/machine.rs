//! The stack machine of pickle protocols 2 to 5, as far as weight files use it.
//! Source: the comments of CPython's `Lib/pickletools.py`, which specify the instructions.

use std::collections::BTreeMap;

use super::value::{Global, Id, Object, Pickle, TensorView};
use crate::error::ConvertError;
use crate::limits::{MARKS_MAX, OBJECTS_MAX, PICKLE_BYTES_MAX, RANK_MAX};

/// Reads the pickle at the beginning of `bytes`; what follows it is left alone.
///
/// # Errors
/// When it has an instruction or a name that is not on the list, is malformed, or is too large.
pub(crate) fn read(bytes: &[u8]) -> Result<Pickle<'_>, ConvertError> {
    let mut machine = Machine {
        bytes,
        at: 0,
        objects: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: BTreeMap::new(),
    };
    loop {
        if machine.at > PICKLE_BYTES_MAX {
            let limit = PICKLE_BYTES_MAX as u64;
            return Err(ConvertError::Limit { what: "bytes of a pickle", limit });
        }
        if let Some(root) = machine.step()? {
            return Ok(Pickle { objects: machine.objects, root, end: machine.at });
        }
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    objects: Vec<Object<'a>>,
    stack: Vec<Id>,
    /// Heights of the stack at the open marks.
    marks: Vec<usize>,
    memo: BTreeMap<u32, Id>,
}

impl<'a> Machine<'a> {
    /// One instruction; the root at the last one.
    fn step(&mut self) -> Result<Option<Id>, ConvertError> {
        let at = self.at;
        let instruction = self.byte()?;
        match instruction {
            b'.' => return self.pop().map(Some),
            // PROTO and FRAME say nothing that is needed.
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'(' => self.mark()?,
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_to_mark()?),
            b'q' | b'r' | 0x94 => self.keep(instruction)?,
            b'h' | b'j' => self.recall(instruction)?,
            b')' | b']' | b'}' | b't' | b'l' | 0x85..=0x87 => self.collection(instruction)?,
            b'a' => {
                let items = self.pop_many(1)?;
                self.append(items)?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(items)?;
            }
            b's' => {
                let items = self.pop_many(2)?;
                self.set_items(&items)?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set_items(&items)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)?;
            }
            0x93 => self.stack_global()?,
            b'Q' => {
                let id = self.pop()?;
                self.push(Object::Persistent(id))?;
            }
            b'R' => self.call()?,
            b'b' => self.set_state()?,
            _ => self.plain(instruction, at)?,
        }
        Ok(None)
    }

    /// An instruction that pushes one plain value.
    fn plain(&mut self, instruction: u8, at: usize) -> Result<(), ConvertError> {
        let object = match instruction {
            b'N' => Object::None,
            0x88 | 0x89 => Object::Bool,
            b'J' => Object::Int(i32::from_le_bytes(self.array()?).into()),
            b'K' => Object::Int(self.byte()?.into()),
            b'M' => Object::Int(u16::from_le_bytes(self.array()?).into()),
            0x8a => self.long()?,
            b'G' => {
                self.take(8)?;
                Object::Float
            }
            b'X' | b'T' | 0x8c | b'U' | 0x8d => self.text(instruction)?,
            b'B' | b'C' | 0x8e => {
                let length = self.length(instruction)?;
                self.take(length)?;
                Object::Bytes
            }
            byte => return Err(ConvertError::Instruction { byte, at }),
        };
        self.push(object)
    }

    /// A tuple, list or dictionary: empty, of the values since the mark, or of one to three.
    fn collection(&mut self, instruction: u8) -> Result<(), ConvertError> {
        let object = match instruction {
            b']' => Object::List(Vec::new()),
            b'}' => Object::Dict(Vec::new()),
            b'l' => Object::List(self.pop_to_mark()?),
            b't' => Object::Tuple(self.pop_to_mark()?),
            0x85..=0x87 => Object::Tuple(self.pop_many(usize::from(instruction - 0x84))?),
            _ => Object::Tuple(Vec::new()),
        };
        self.push(object)
    }

    fn stack_global(&mut self) -> Result<(), ConvertError> {
        let (name, module) = (self.pop()?, self.pop()?);
        let (Object::Text(module), Object::Text(name)) = (self.object(module), self.object(name))
        else {
            return Err(self.malformed("a name that is no text"));
        };
        let (module, name) = (*module, *name);
        self.global(module, name)
    }

    // -- the stack --

    fn push(&mut self, object: Object<'a>) -> Result<(), ConvertError> {
        let Some(id) = u32::try_from(self.objects.len()).ok().filter(|id| {
            // Ids of a pickle fit its limit, and the limit fits an id.
            (*id as usize) < OBJECTS_MAX
        }) else {
            let limit = OBJECTS_MAX as u64;
            return Err(ConvertError::Limit { what: "objects of a pickle", limit });
        };
        self.objects.push(object);
        self.stack.push(Id(id));
        Ok(())
    }

    fn pop(&mut self) -> Result<Id, ConvertError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(self.malformed("an instruction without its value"));
        }
        self.stack.pop().ok_or_else(|| self.malformed("an instruction without its value"))
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Id>, ConvertError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len().checked_sub(count) {
            Some(height) if height >= floor => Ok(self.stack.split_off(height)),
            Some(_) | None => Err(self.malformed("an instruction without its values")),
        }
    }

    fn mark(&mut self) -> Result<(), ConvertError> {
        if self.marks.len() == MARKS_MAX {
            return Err(ConvertError::Limit { what: "open marks", limit: MARKS_MAX as u64 });
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, ConvertError> {
        let height = self.marks.pop().ok_or_else(|| self.malformed("an end without its mark"))?;
        Ok(self.stack.split_off(height))
    }

    fn top(&self) -> Result<Id, ConvertError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let top = self.stack.get(floor..).and_then(<[Id]>::last);
        top.copied().ok_or_else(|| self.malformed("an instruction without its value"))
    }

    fn object(&self, id: Id) -> &Object<'a> {
        &self.objects[id.0 as usize]
    }

    // -- values --

    fn long(&mut self) -> Result<Object<'a>, ConvertError> {
        let length = usize::from(self.byte()?);
        let bytes = self.take(length)?;
        if bytes.len() > 8 {
            return Ok(Object::LongInt(bytes));
        }
        let is_negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut wide = [if is_negative { 0xff } else { 0 }; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        Ok(Object::Int(i64::from_le_bytes(wide)))
    }

    fn text(&mut self, instruction: u8) -> Result<Object<'a>, ConvertError> {
        let length = self.length(instruction)?;
        let bytes = self.take(length)?;
        let text = std::str::from_utf8(bytes);
        text.map(Object::Text).map_err(|_| self.malformed("a text that is not UTF-8"))
    }

    /// The length that stands before a text or bytes.
    fn length(&mut self, instruction: u8) -> Result<usize, ConvertError> {
        let length = match instruction {
            0x8c | b'U' | b'C' => u64::from(self.byte()?),
            0x8d | 0x8e => u64::from_le_bytes(self.array()?),
            _ => u64::from(u32::from_le_bytes(self.array()?)),
        };
        usize::try_from(length).map_err(|_| self.malformed("a length beyond the file"))
    }

    fn append(&mut self, items: Vec<Id>) -> Result<(), ConvertError> {
        let target = self.top()?;
        let Object::List(list) = &mut self.objects[target.0 as usize] else {
            return Err(self.malformed("an item for what is no list"));
        };
        list.extend(items);
        Ok(())
    }

    fn set_items(&mut self, items: &[Id]) -> Result<(), ConvertError> {
        let (pairs, rest) = items.as_chunks::<2>();
        let target = self.top()?;
        if !rest.is_empty() {
            return Err(self.malformed("a key without a value"));
        }
        let Object::Dict(dict) = &mut self.objects[target.0 as usize] else {
            return Err(self.malformed("an entry for what is no dictionary"));
        };
        dict.extend(pairs.iter().map(|[key, value]| (*key, *value)));
        Ok(())
    }

    // -- the memo --

    fn keep(&mut self, instruction: u8) -> Result<(), ConvertError> {
        let slot = match instruction {
            b'q' => u32::from(self.byte()?),
            b'r' => u32::from_le_bytes(self.array()?),
            _ => u32::try_from(self.memo.len()).unwrap_or(u32::MAX),
        };
        let top = self.top()?;
        if self.memo.len() == OBJECTS_MAX {
            let limit = OBJECTS_MAX as u64;
            return Err(ConvertError::Limit { what: "memo entries of a pickle", limit });
        }
        self.memo.insert(slot, top);
        Ok(())
    }

    fn recall(&mut self, instruction: u8) -> Result<(), ConvertError> {
        let slot = match instruction {
            b'h' => u32::from(self.byte()?),
            _ => u32::from_le_bytes(self.array()?),
        };
        let id = self.memo.get(&slot).copied();
        self.stack.push(id.ok_or_else(|| self.malformed("a reference to nothing"))?);
        Ok(())
    }

    // -- names and what stands for a call --

    fn global(&mut self, module: &str, name: &str) -> Result<(), ConvertError> {
        match Global::named(module, name) {
            Some(global) => self.push(Object::Global(global)),
            None => {
                let name: String = format!("{module}.{name}").chars().take(200).collect();
                Err(ConvertError::Forbidden { name })
            }
        }
    }

    fn call(&mut self) -> Result<(), ConvertError> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let (Object::Global(global), Object::Tuple(arguments)) =
            (self.object(callee), self.object(arguments))
        else {
            return Err(self.malformed("a call of what is no name"));
        };
        let (global, arguments) = (*global, arguments.clone());
        match (global, arguments.as_slice()) {
            (Global::OrderedDict, []) => self.push(Object::Dict(Vec::new())),
            (Global::OrderedDict, [pairs]) => self.dict_of_pairs(*pairs),
            (Global::RebuildTensor, [storage, offset, shape, strides])
            | (Global::RebuildTensorV2, [storage, offset, shape, strides, ..]) => {
                self.tensor(*storage, *offset, [*shape, *strides])
            }
            (Global::RebuildParameter, [data, ..]) => {
                self.stack.push(*data);
                Ok(())
            }
            (Global::Size, [sizes]) => {
                self.stack.push(*sizes);
                Ok(())
            }
            (
                Global::OrderedDict
                | Global::RebuildTensor
                | Global::RebuildTensorV2
                | Global::RebuildParameter
                | Global::Size
                | Global::Storage(_)
                | Global::UntypedStorage,
                _,
            ) => Err(self.malformed("a call with arguments that no weight file has")),
        }
    }

    fn dict_of_pairs(&mut self, pairs: Id) -> Result<(), ConvertError> {
        let (Object::List(pairs) | Object::Tuple(pairs)) = self.object(pairs) else {
            return Err(self.malformed("a dictionary of what are no pairs"));
        };
        let mut dict = Vec::with_capacity(pairs.len());
        for pair in pairs {
            let (Object::Tuple(pair) | Object::List(pair)) = self.object(*pair) else {
                return Err(self.malformed("a dictionary of what are no pairs"));
            };
            let [key, value] = pair.as_slice() else {
                return Err(self.malformed("a dictionary of what are no pairs"));
            };
            dict.push((*key, *value));
        }
        self.push(Object::Dict(dict))
    }

    fn tensor(
        &mut self,
        storage: Id,
        offset: Id,
        [shape, strides]: [Id; 2],
    ) -> Result<(), ConvertError> {
        let Object::Persistent(storage) = self.object(storage) else {
            return Err(self.malformed("a tensor without a storage"));
        };
        let storage = *storage;
        let offset = self.number(offset)?;
        let (shape, strides) = (self.numbers(shape)?, self.numbers(strides)?);
        if shape.len() != strides.len() {
            return Err(self.malformed("a tensor with another number of strides than dimensions"));
        }
        self.push(Object::Tensor(TensorView { storage, offset, shape, strides }))
    }

    fn number(&self, id: Id) -> Result<u64, ConvertError> {
        if let Object::Int(number) = self.object(id)
            && let Ok(number) = u64::try_from(*number)
        {
            return Ok(number);
        }
        Err(self.malformed("a tensor whose sizes are no whole numbers"))
    }

    fn numbers(&self, id: Id) -> Result<Vec<u64>, ConvertError> {
        let (Object::Tuple(items) | Object::List(items)) = self.object(id) else {
            return Err(self.malformed("a tensor whose sizes are no tuple"));
        };
        if items.len() > RANK_MAX {
            return Err(ConvertError::Limit { what: "dimensions", limit: RANK_MAX as u64 });
        }
        items.iter().map(|item| self.number(*item)).collect()
    }

    /// `BUILD` on a dictionary carries its attributes (torch keeps versions of layers there), which
    /// are no weights. On anything else it would run code.
    fn set_state(&mut self) -> Result<(), ConvertError> {
        self.pop()?;
        let target = self.top()?;
        if matches!(self.object(target), Object::Dict(_)) {
            return Ok(());
        }
        Err(self.malformed("a state for what is no dictionary"))
    }

    // -- bytes --

    fn malformed(&self, what: &'static str) -> ConvertError {
        ConvertError::Malformed { what, at: self.at }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], ConvertError> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(ConvertError::Ends { what: "a pickle", at: self.at })?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ConvertError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn byte(&mut self) -> Result<u8, ConvertError> {
        Ok(self.take(1)?[0])
    }

    /// Up to the next line feed.
    fn line(&mut self) -> Result<&'a str, ConvertError> {
        const LINE_BYTES_MAX: usize = 1024;
        let rest = &self.bytes[self.at..];
        let end = rest.iter().take(LINE_BYTES_MAX).position(|byte| *byte == b'\n');
        let Some(end) = end else { return Err(self.malformed("a name without an end")) };
        let line = self.take(end + 1)?;
        std::str::from_utf8(&line[..end]).map_err(|_| self.malformed("a name that is not UTF-8"))
    }
}
