//! A streaming JSON reader that follows one tree of paths and skips everything else.
//!
//! It is iterative, keeps no document and takes its input in any pieces: memory is the tree's depth plus one
//! key or number of at most 256 bytes, time is linear. Accepted grammar: RFC 8259 along the tree's paths,
//! with two leniencies (control and non-UTF-8 bytes inside strings; any bare word where a literal may stand,
//! so `NaN` does not lose a document). Inside skipped values only strings and the number of brackets are
//! checked.

mod skip;
mod text;

use crate::tree::Node;
use skip::{quote_or_backslash, word_length};

/// Keys, numbers and captured words longer than this are cut and never match.
const WORD_BYTES_MAX: usize = 256;
/// A captured object (the raw usage) above this size is given up, not truncated.
pub const CAPTURE_BYTES_MAX: usize = 4096;

/// What a reader tells about the paths of its tree.
pub trait Sink {
    /// An object or array at a followed node begins.
    fn enter(&mut self, node: &'static Node);
    /// It ends; `elements` is the number of elements of an array.
    fn leave(&mut self, node: &'static Node, elements: u64);
    /// A container at a kept node that the tree does not follow.
    fn opaque(&mut self, node: &'static Node);
    /// A piece of a string value, escapes resolved.
    fn text(&mut self, node: &'static Node, piece: &[u8]);
    /// Whether only the length of this string matters.
    fn measures(&self, node: &'static Node) -> bool;
    /// So many further bytes of such a string, escapes resolved.
    fn measured(&mut self, node: &'static Node, bytes: usize);
    /// The string is complete.
    fn text_end(&mut self, node: &'static Node);
    /// A number or literal; `cut` when it was too long to keep.
    fn word(&mut self, node: &'static Node, word: &[u8], cut: bool);
    /// A followed member occurred twice in one object.
    fn duplicate(&mut self);
    /// Whether the object beginning at this node is to be captured as sent.
    fn captures(&self, node: &'static Node) -> bool;
    /// The captured bytes; `None` when they were too many.
    fn captured(&mut self, node: &'static Node, bytes: Option<&[u8]>);
}

/// How far a feed got.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress<'a> {
    /// All input was taken; the document goes on.
    More,
    /// The document is complete; this input follows it.
    Done(&'a [u8]),
    /// This is not JSON; nothing of the document may be used.
    Bad,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Value,
    FirstElement,
    FirstKey,
    Key,
    KeyText,
    Colon,
    After,
    Text,
    Word,
    Skip,
    SkipText,
    SkipWord,
    Done,
    Bad,
}

impl State {
    fn is_structure(self) -> bool {
        matches!(
            self,
            Self::Value | Self::FirstElement | Self::FirstKey | Self::Key | Self::Colon | Self::After
        )
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Escape {
    None,
    Backslash,
    Unicode { digits: u8, value: u32 },
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    node: &'static Node,
    is_object: bool,
    seen: u64,
    elements: u64,
}

/// The reader of one document after another; `begin` before each.
#[derive(Debug, Clone)]
pub struct Reader {
    root: &'static Node,
    state: State,
    stack: Vec<Frame>,
    node: Option<&'static Node>,
    word: Vec<u8>,
    word_cut: bool,
    escape: Escape,
    high_surrogate: u32,
    skip_depth: u64,
    skip_escaped: bool,
    capture: Option<usize>,
    captured: Vec<u8>,
    captured_over: bool,
}

impl Reader {
    /// A reader that follows `root`.
    pub fn new(root: &'static Node) -> Self {
        Self {
            root,
            state: State::Value,
            stack: Vec::with_capacity(16),
            node: Some(root),
            word: Vec::new(),
            word_cut: false,
            escape: Escape::None,
            high_surrogate: 0,
            skip_depth: 0,
            skip_escaped: false,
            capture: None,
            captured: Vec::new(),
            captured_over: false,
        }
    }

    /// The tree it follows.
    pub fn root(&self) -> &'static Node {
        self.root
    }

    /// Forget the last document and expect a new one.
    pub fn begin(&mut self) {
        self.state = State::Value;
        self.stack.clear();
        self.node = Some(self.root);
        self.escape = Escape::None;
        self.high_surrogate = 0;
        self.skip_depth = 0;
        self.skip_escaped = false;
        self.capture = None;
    }

    /// Forget the last document and stand where another reader of the same tree stands, which captures nothing.
    pub fn begin_at(&mut self, other: &Self) {
        self.state = other.state;
        self.stack.clone_from(&other.stack);
        self.node = other.node;
        self.word.clone_from(&other.word);
        self.word_cut = other.word_cut;
        self.escape = other.escape;
        self.high_surrogate = other.high_surrogate;
        self.skip_depth = other.skip_depth;
        self.skip_escaped = other.skip_escaped;
        self.capture = None;
    }

    /// Whether an object is being captured.
    pub fn is_capturing(&self) -> bool {
        self.capture.is_some()
    }

    /// Whether input so far ends inside a string, where a line end is no white space.
    pub fn is_in_text(&self) -> bool {
        matches!(self.state, State::Text | State::SkipText | State::KeyText)
    }

    /// Take the next piece of the document.
    pub fn feed<'a, S: Sink>(&mut self, data: &'a [u8], sink: &mut S) -> Progress<'a> {
        let mut rest = data;
        let mut from = data;
        while !rest.is_empty() {
            rest = match self.state {
                State::Skip => self.skip(rest),
                State::SkipText => self.skip_text(rest),
                State::SkipWord => self.skip_word(rest),
                State::Text => self.text(rest, sink),
                State::KeyText => self.key_text(rest, sink),
                State::Word => self.word(rest, sink),
                State::Done | State::Bad => break,
                _ => self.structure(rest, &mut from, sink),
            };
        }
        if self.capture.is_some() {
            self.keep_captured(from);
        }
        match self.state {
            State::Done => Progress::Done(rest),
            State::Bad => Progress::Bad,
            _ => Progress::More,
        }
    }

    /// What stands around texts and words: brackets, commas, colons, whole keys, the first byte of a value.
    fn structure<'a, S: Sink>(&mut self, data: &'a [u8], from: &mut &'a [u8], sink: &mut S) -> &'a [u8] {
        let mut rest = data;
        while let Some((&byte, tail)) = rest.split_first() {
            let here = std::mem::replace(&mut rest, tail);
            match (self.state, byte) {
                (_, b' ' | b'\t' | b'\n' | b'\r') => {}
                (State::FirstKey | State::Key, b'"') => rest = self.key(tail, sink),
                (State::Colon, b':') => self.state = State::Value,
                (State::After, b',') => self.next_member(),
                (State::FirstKey | State::After, b'}') => self.close(true, tail, from, sink),
                (State::FirstElement | State::After, b']') => self.close(false, tail, from, sink),
                (State::FirstElement | State::Value, _) => {
                    if self.state == State::FirstElement {
                        self.count_element();
                    }
                    rest = self.value(byte, here, tail, from, sink);
                }
                _ => self.state = State::Bad,
            }
            if !self.state.is_structure() {
                break;
            }
        }
        rest
    }

    /// Behind a key's quote: nearly every key stands whole in its piece and is followed by its colon at once.
    fn key<'a, S: Sink>(&mut self, rest: &'a [u8], sink: &mut S) -> &'a [u8] {
        let end = quote_or_backslash(rest).unwrap_or(rest.len());
        if let Some((key, behind)) = rest.split_at_checked(end)
            && let Some(tail) = behind.strip_prefix(b"\":")
        {
            self.match_key(key, sink);
            self.state = State::Value;
            return tail;
        }
        self.word.clear();
        self.word_cut = false;
        self.state = State::KeyText;
        rest
    }

    /// The first byte of a value at `self.node` (`None`: a value nobody asked for).
    fn value<'a, S: Sink>(
        &mut self,
        byte: u8,
        rest: &'a [u8],
        tail: &'a [u8],
        from: &mut &'a [u8],
        sink: &mut S,
    ) -> &'a [u8] {
        match byte {
            b'{' | b'[' => {
                self.open(byte == b'{', sink);
                if let (None, Some(node), b'{') = (self.capture, self.node, byte)
                    && self.state == State::FirstKey
                    && sink.captures(node)
                {
                    self.capture = Some(self.stack.len());
                    self.captured.clear();
                    self.captured_over = false;
                    *from = rest;
                }
            }
            b'"' if self.node.is_some() => {
                self.state = State::Text;
            }
            b'"' => {
                self.skip_escaped = false;
                self.state = State::SkipText;
            }
            b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                self.word.clear();
                self.word_cut = false;
                self.state = if self.node.is_some() { State::Word } else { State::SkipWord };
                return rest;
            }
            _ => self.state = State::Bad,
        }
        tail
    }

    fn open<S: Sink>(&mut self, is_object: bool, sink: &mut S) {
        let followed =
            self.node.filter(|node| if is_object { !node.keys.is_empty() } else { node.each.is_some() });
        if let Some(node) = followed {
            sink.enter(node);
            self.stack.push(Frame { node, is_object, seen: 0, elements: 0 });
            self.state = if is_object { State::FirstKey } else { State::FirstElement };
        } else {
            if let Some(node) = self.node {
                sink.opaque(node);
            }
            self.skip_depth = 1;
            self.state = State::Skip;
        }
    }

    fn close<'a, S: Sink>(&mut self, is_object: bool, tail: &'a [u8], from: &mut &'a [u8], sink: &mut S) {
        let Some(frame) = self.stack.pop() else {
            self.state = State::Bad;
            return;
        };
        if frame.is_object != is_object {
            self.state = State::Bad;
            return;
        }
        if self.capture == Some(self.stack.len().saturating_add(1)) {
            let length = from.len().saturating_sub(tail.len());
            self.keep_captured(from.get(..length).unwrap_or_default());
            self.capture = None;
            sink.captured(frame.node, (!self.captured_over).then_some(self.captured.as_slice()));
        }
        sink.leave(frame.node, frame.elements);
        self.after();
    }

    fn after(&mut self) {
        self.state = if self.stack.is_empty() { State::Done } else { State::After };
    }

    fn next_member(&mut self) {
        match self.stack.last() {
            Some(frame) if frame.is_object => self.state = State::Key,
            Some(_) => {
                self.count_element();
                self.state = State::Value;
            }
            None => self.state = State::Bad,
        }
    }

    fn count_element(&mut self) {
        if let Some(frame) = self.stack.last_mut() {
            frame.elements = frame.elements.saturating_add(1);
            self.node = frame.node.each;
        }
    }

    fn word<'a, S: Sink>(&mut self, rest: &'a [u8], sink: &mut S) -> &'a [u8] {
        let length = word_length(rest);
        let (piece, tail) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        if !tail.is_empty() && self.word.is_empty() && length <= WORD_BYTES_MAX {
            if let Some(node) = self.node {
                sink.word(node, piece, false);
            }
            self.after();
            return tail;
        }
        self.keep_word(piece);
        if !tail.is_empty() {
            if let Some(node) = self.node {
                sink.word(node, &self.word, self.word_cut);
            }
            self.after();
        }
        tail
    }

    fn keep_word(&mut self, piece: &[u8]) {
        let room = WORD_BYTES_MAX.saturating_sub(self.word.len());
        self.word_cut |= piece.len() > room;
        self.word.extend_from_slice(piece.get(..room).unwrap_or(piece));
    }

    fn keep_captured(&mut self, piece: &[u8]) {
        if self.captured.len().saturating_add(piece.len()) > CAPTURE_BYTES_MAX {
            self.captured_over = true;
        } else if !self.captured_over {
            self.captured.extend_from_slice(piece);
        }
    }
}
