//! What a script is made of.

/// A piece of a word.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// Text as it stands; unquoted text may be a pattern of file names.
    Text { text: String, quoted: bool },
    /// `$name` or `${name op word}`.
    Param {
        name: String,
        op: String,
        word: Word,
        quoted: bool,
    },
    /// `$(script)`.
    Command { script: String, quoted: bool },
    /// `$((expression))`.
    Arith(Word),
}

pub type Word = Vec<Part>;

#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    Read(Word),
    Write(Word),
    Append(Word),
    /// To where another descriptor leads: `2>&1`.
    Same(u8),
    /// A here-document or here-string.
    Here(Word),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Redirect {
    pub fd: u8,
    pub target: Target,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    Simple {
        assigns: Vec<(String, Word)>,
        words: Vec<Word>,
        redirects: Vec<Redirect>,
    },
    Compound(Box<Compound>, Vec<Redirect>),
    Pipeline {
        negated: bool,
        stages: Vec<Node>,
    },
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    List(Vec<Node>),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Compound {
    Group(Node),
    Subshell(Node),
    If {
        arms: Vec<(Node, Node)>,
        otherwise: Option<Node>,
    },
    While {
        until: bool,
        condition: Node,
        body: Node,
    },
    For {
        name: String,
        words: Option<Vec<Word>>,
        body: Node,
    },
    Case {
        word: Word,
        arms: Vec<(Vec<Word>, Node)>,
    },
}
