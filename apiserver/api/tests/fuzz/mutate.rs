//! Deterministic mutations of inputs: of their bytes, of what looks like a length, and of the structure of JSON.

use serde_json::{Map, Value};

/// Numbers at which something tends to break.
const NUMBERS: [&str; 9] = [
    "0",
    "-0.0",
    "-1",
    "2147483648",
    "9223372036854775807",
    "18446744073709551616",
    "1e300",
    "0.1",
    "9007199254740993",
];

/// Keys and texts that mean something to some target.
const WORDS: [&str; 18] = [
    "",
    ".",
    "f:a",
    "i:-1",
    "v:null",
    r#"k:{"name":"a"}"#,
    "$patch",
    "delete",
    "replace",
    "merge",
    "$retainKeys",
    "$setElementOrder/containers",
    "$deleteFromPrimitiveList/finalizers",
    "name",
    "/metadata/labels",
    "~1~0",
    "kind",
    "\u{e9}\u{1f600}",
];

/// Makes inputs from others, always the same from the same seed.
pub(crate) struct Mutator(u64);

impl Mutator {
    /// A source of mutations.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// One of the inputs after a few mutations.
    pub(crate) fn mutate(&mut self, inputs: &[Vec<u8>]) -> Vec<u8> {
        let mut input = self.pick(inputs).clone();
        for _ in 0..=self.below(4) {
            let other = self.pick(inputs);
            match self.below(10) {
                0..4 if self.structure(&mut input, other) => {}
                0 | 4 => self.flip(&mut input),
                1 | 5 => self.splice(&mut input, other),
                2 | 6 => input.truncate(self.below(input.len() + 1)),
                3 | 7 => self.repeat(&mut input),
                8 => self.length_bomb(&mut input),
                _ => self.word_in(&mut input),
            }
        }
        input
    }

    /// The next number of the sequence (splitmix64).
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, or 0.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    fn word(&mut self) -> &'static str {
        WORDS[self.below(WORDS.len())]
    }

    fn flip(&mut self, input: &mut [u8]) {
        let at = self.below(input.len());
        if let Some(byte) = input.get_mut(at) {
            *byte ^= 1 << (self.next() % 8);
        }
    }

    /// A stretch of the input, at most 64 bytes long.
    fn stretch(&mut self, input: &[u8]) -> std::ops::Range<usize> {
        let start = self.below(input.len());
        let length = 1 + self.below(64);
        start..(start + length).min(input.len())
    }

    fn splice(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        let from = self.stretch(other);
        let into = self.stretch(input);
        input.splice(into, other[from].iter().copied());
    }

    fn repeat(&mut self, input: &mut Vec<u8>) {
        let stretch = self.stretch(input);
        let times = 1 + self.below(8);
        let copies = input[stretch.clone()].repeat(times);
        input.splice(stretch.end..stretch.end, copies);
    }

    /// A long number where a length may be: a varint of 2⁶³ or so, or digits.
    fn length_bomb(&mut self, input: &mut Vec<u8>) {
        let bomb: &[u8] = match self.below(3) {
            0 => &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
            1 => &[0xff, 0xff, 0xff, 0xff, 0x0f],
            _ => self.pick(&NUMBERS).as_bytes(),
        };
        let at = self.below(input.len() + 1);
        let end = (at + self.below(2)).min(input.len());
        input.splice(at..end, bomb.iter().copied());
    }

    fn word_in(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len() + 1);
        input.splice(at..at, self.word().bytes());
    }

    /// Changes one line of the input that is JSON; tells whether there was any.
    fn structure(&mut self, input: &mut Vec<u8>, other: &[u8]) -> bool {
        let mut lines: Vec<Vec<u8>> = input.split(|byte| *byte == b'\n').map(Vec::from).collect();
        let at = self.below(lines.len());
        let Ok(mut value) = serde_json::from_slice::<Value>(&lines[at]) else {
            return false;
        };
        let line = other
            .split(|byte| *byte == b'\n')
            .next()
            .unwrap_or_default();
        let other = serde_json::from_slice(line).unwrap_or(Value::Null);
        let graft = self.part(&other).clone();
        self.change(&mut value, graft);
        lines[at] = value.to_string().into_bytes();
        *input = lines.join(&b'\n');
        true
    }

    /// Some value inside a value.
    fn part<'a>(&mut self, value: &'a Value) -> &'a Value {
        let below: Vec<&Value> = match value {
            Value::Array(items) => items.iter().collect(),
            Value::Object(map) => map.values().collect(),
            _ => return value,
        };
        if below.is_empty() || self.below(4) == 0 {
            return value;
        }
        let next = *self.pick(&below);
        self.part(next)
    }

    /// Changes some place inside a value.
    fn change(&mut self, value: &mut Value, graft: Value) {
        let deeper = self.below(4) != 0;
        match value {
            Value::Array(items) if deeper && !items.is_empty() => {
                let at = self.below(items.len());
                self.change(&mut items[at], graft);
            }
            Value::Object(map) if deeper && !map.is_empty() => {
                let at = self.below(map.len());
                if let Some(below) = map.values_mut().nth(at) {
                    self.change(below, graft);
                }
            }
            Value::Array(items) => self.change_items(items, graft),
            Value::Object(map) => self.change_entries(map, graft),
            scalar => *scalar = self.scalar(graft),
        }
    }

    fn scalar(&mut self, graft: Value) -> Value {
        match self.below(6) {
            0 => Value::Null,
            1 => Value::from(self.word()),
            2 => self.pick(&NUMBERS).parse().unwrap_or_default(),
            3 => Value::Object(Map::new()),
            4 => Value::Array(Vec::new()),
            _ => graft,
        }
    }

    fn change_items(&mut self, items: &mut Vec<Value>, graft: Value) {
        let at = self.below(items.len());
        match self.below(4) {
            0 if !items.is_empty() => {
                items.remove(at);
            }
            1 if !items.is_empty() => items.push(items[at].clone()),
            2 if !items.is_empty() => items.swap(0, at),
            _ => items.insert(at, graft),
        }
    }

    fn change_entries(&mut self, map: &mut Map<String, Value>, graft: Value) {
        let at = self.below(map.len());
        let key = map.keys().nth(at).cloned();
        match (self.below(5), key) {
            (0, Some(key)) => {
                map.shift_remove(&key);
            }
            (1, Some(key)) => {
                map.insert(key, Value::Null);
            }
            (2, Some(key)) => {
                let value = map.shift_remove(&key).unwrap_or_default();
                map.insert(self.word().to_owned(), value);
            }
            (3, Some(key)) => {
                map.insert(key, graft);
            }
            _ => {
                map.insert(self.word().to_owned(), graft);
            }
        }
    }
}
