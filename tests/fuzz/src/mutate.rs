//! Changes to inputs, drawn from a seed.

use fastrand::Rng;

use crate::corpus::Pool;
use crate::{Settings, execute};

/// Numbers at which arithmetic and buffers break.
const NUMBERS: [u64; 22] = [
    0,
    1,
    2,
    3,
    9,
    10,
    59,
    60,
    127,
    128,
    255,
    256,
    4095,
    4096,
    65_535,
    65_536,
    0x7fff_ffff,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX,
];

/// Makes inputs out of others.
#[derive(Debug)]
pub(crate) struct Mutator {
    rng: Rng,
    settings: Settings,
}

impl Mutator {
    /// The same seed and target give the same inputs, as long as the corpus is the same.
    pub(crate) fn new(seed: u64, target: &str, settings: Settings) -> Self {
        Self { rng: Rng::with_seed(seed ^ execute::hash(target.as_bytes())), settings }
    }

    /// The next input: one of the pool with one to eight changes, mostly few.
    pub(crate) fn next(&mut self, pool: &Pool) -> Vec<u8> {
        let mut out = pool.any(&mut self.rng).to_vec();
        let changes = 1 << self.rng.u32(0..4);
        for _ in 0..self.rng.u32(1..=changes) {
            self.change(&mut out, pool);
        }
        out.truncate(self.settings.max_len);
        out
    }

    fn change(&mut self, out: &mut Vec<u8>, pool: &Pool) {
        match self.rng.u32(0..14) {
            0 => self.flip_bit(out),
            1 => self.set_byte(out),
            2 => self.insert_byte(out),
            3 | 4 => self.token(out),
            5 => self.remove(out),
            6 => self.repeat(out),
            7 => out.truncate(self.rng.usize(..=out.len())),
            8 => {
                let other = pool.any(&mut self.rng);
                self.splice(out, other);
            }
            9 => {
                let other = pool.any(&mut self.rng);
                self.take_piece(out, other);
            }
            10 => self.move_piece(out),
            11 => self.number_in_text(out),
            12 => self.number_in_bytes(out),
            _ => self.replace_by_token(out),
        }
    }

    /// A range of `out`, mostly short.
    fn range(&mut self, out: &[u8]) -> std::ops::Range<usize> {
        let start = self.rng.usize(..=out.len());
        let most = (out.len() - start).min(if self.rng.u8(..8) == 0 { usize::MAX } else { 16 });
        start..start + self.rng.usize(..=most)
    }

    fn flip_bit(&mut self, out: &mut [u8]) {
        if !out.is_empty() {
            out[self.rng.usize(..out.len())] ^= 1 << self.rng.u32(..8);
        }
    }

    fn set_byte(&mut self, out: &mut [u8]) {
        if !out.is_empty() {
            out[self.rng.usize(..out.len())] = self.byte();
        }
    }

    fn insert_byte(&mut self, out: &mut Vec<u8>) {
        out.insert(self.rng.usize(..=out.len()), self.byte());
    }

    /// Any byte, or one that parsers look for.
    fn byte(&mut self) -> u8 {
        const LOOKED_FOR: &[u8] = b"\0\t\n\r \"'#%&*+,-./0:;<=>?@[\\]_`{|}~\x7f\x80\xc3\xff";
        if self.rng.bool() { self.rng.u8(..) } else { LOOKED_FOR[self.rng.usize(..LOOKED_FOR.len())] }
    }

    fn some_token(&mut self) -> &'static [u8] {
        match self.settings.tokens {
            [] => b"",
            tokens => tokens[self.rng.usize(..tokens.len())].as_bytes(),
        }
    }

    fn token(&mut self, out: &mut Vec<u8>) {
        let at = self.rng.usize(..=out.len());
        let token = self.some_token();
        out.splice(at..at, token.iter().copied());
    }

    fn replace_by_token(&mut self, out: &mut Vec<u8>) {
        let range = self.range(out);
        let token = self.some_token();
        out.splice(range, token.iter().copied());
    }

    fn remove(&mut self, out: &mut Vec<u8>) {
        let range = self.range(out);
        out.drain(range);
    }

    /// A piece again and again, now and then until nothing more fits.
    fn repeat(&mut self, out: &mut Vec<u8>) {
        let range = self.range(out);
        let room = self.settings.max_len.saturating_sub(out.len());
        let most = if self.rng.u8(..8) == 0 { room / range.len().max(1) } else { 4 };
        let piece = out[range.clone()].repeat(self.rng.usize(..=most));
        out.splice(range.end..range.end, piece);
    }

    /// The beginning of one, the end of another.
    fn splice(&mut self, out: &mut Vec<u8>, other: &[u8]) {
        out.truncate(self.rng.usize(..=out.len()));
        out.extend_from_slice(&other[self.rng.usize(..=other.len())..]);
    }

    fn take_piece(&mut self, out: &mut Vec<u8>, other: &[u8]) {
        let piece = other[self.range(other)].to_vec();
        let at = self.rng.usize(..=out.len());
        let until = if self.rng.bool() { at } else { (at + piece.len()).min(out.len()) };
        out.splice(at..until, piece);
    }

    fn move_piece(&mut self, out: &mut Vec<u8>) {
        let range = self.range(out);
        let piece: Vec<u8> = out.drain(range).collect();
        let at = self.rng.usize(..=out.len());
        out.splice(at..at, piece);
    }

    /// A number written in digits becomes another.
    fn number_in_text(&mut self, out: &mut Vec<u8>) {
        let from = self.rng.usize(..=out.len());
        let Some(start) = out[from..].iter().position(u8::is_ascii_digit).map(|at| from + at) else { return };
        let len = out[start..].iter().take_while(|b| b.is_ascii_digit()).count();
        let old = std::str::from_utf8(&out[start..start + len]).ok().and_then(|t| t.parse::<u64>().ok()).unwrap_or(0);
        let new = match self.rng.u32(..4) {
            0 => old.wrapping_add(1),
            1 => old.wrapping_sub(1),
            _ => NUMBERS[self.rng.usize(..NUMBERS.len())],
        };
        out.splice(start..start + len, new.to_string().into_bytes());
    }

    /// A number of fixed or variable length is written over some bytes: lengths, counts, offsets.
    fn number_in_bytes(&mut self, out: &mut Vec<u8>) {
        let number = NUMBERS[self.rng.usize(..NUMBERS.len())];
        let encoded: Vec<u8> = match self.rng.u32(..5) {
            0 => number.to_be_bytes()[6..].to_vec(),
            1 => number.to_be_bytes()[4..].to_vec(),
            2 => number.to_be_bytes().to_vec(),
            3 => number.to_le_bytes()[..4].to_vec(),
            _ => varint(number),
        };
        let at = self.rng.usize(..=out.len());
        let until = (at + if self.rng.bool() { encoded.len() } else { 1 }).min(out.len());
        out.splice(at..until, encoded);
    }
}

/// Seven bits a byte, the lowest first, as postcard has it.
fn varint(mut number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> Pool {
        Pool::load(std::path::Path::new("none"), &[b"10MiB".to_vec(), b"1.5 GB".to_vec(), b"4096".to_vec()])
    }

    #[test]
    fn a_seed_gives_the_same_inputs_and_another_seed_others() {
        let settings = Settings { tokens: &["MiB"], max_len: 64, ..Settings::default() };
        let draw = |seed| {
            let (pool, mut mutator) = (pool(), Mutator::new(seed, "t", settings.clone()));
            (0..200).map(|_| mutator.next(&pool)).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let drawn = draw(1);
        assert!(drawn.iter().all(|input| input.len() <= 64));
        let distinct: std::collections::BTreeSet<_> = drawn.iter().collect();
        assert!(distinct.len() > 150, "{} of 200 differ", distinct.len());
    }

    #[test]
    fn variable_length_numbers_are_those_of_postcard() {
        assert_eq!(varint(0), [0]);
        assert_eq!(varint(300), [0xac, 0x02]);
        assert_eq!(varint(u64::MAX).len(), 10);
    }
}
