//! Whether prost and upb are sure to read a message alike.
//!
//! They differ in what no encoder writes: prost refuses a known field with another wire type than its own, where
//! upb takes it for an unknown field; upb takes a map entry with unknown fields for an unknown field itself;
//! prost takes tags of more than five bytes, upb varints of more than 64 bits; and their limits of depth are
//! counted differently.

/// The fields that a message has, by number, from 1 on.
type Schema = &'static [Field];

#[derive(Clone, Copy)]
enum Field {
    Varint,
    Varints,
    Fixed64,
    Fixed32s,
    Fixed64s,
    Bytes,
    Message(Schema),
    Map,
}

const PARAMETER: Schema = &[Field::Varint, Field::Varint, Field::Bytes, Field::Fixed64, Field::Varint];
const ENTRY: Schema = &[Field::Bytes, Field::Message(PARAMETER)];
const CONTENTS: Schema = &[
    Field::Varints,
    Field::Varints,
    Field::Varints,
    Field::Varints,
    Field::Varints,
    Field::Fixed32s,
    Field::Fixed64s,
    Field::Bytes,
];
const INPUT: Schema = &[Field::Bytes, Field::Bytes, Field::Varints, Field::Map, Field::Message(CONTENTS)];
const OUTPUT: Schema = &[Field::Bytes, Field::Map];
const REQUEST: Schema = &[
    Field::Bytes,
    Field::Bytes,
    Field::Bytes,
    Field::Map,
    Field::Message(INPUT),
    Field::Message(OUTPUT),
    Field::Bytes,
];

const MAX_OPEN_GROUPS: usize = 50;

/// Why a walk ends early.
enum End {
    /// Neither reads further: both refuse the message.
    Damaged,
    NotPlain,
}

/// Whether both readings of a request must be the same.
pub fn is_plain(message: &[u8]) -> bool {
    !matches!(walk(message, REQUEST, false), Err(End::NotPlain))
}

fn walk(mut rest: &[u8], schema: Schema, is_entry: bool) -> Result<(), End> {
    let mut groups = Vec::new();
    while !rest.is_empty() {
        let before = rest.len();
        let tag = varint(&mut rest)?;
        if before - rest.len() > 5 {
            return Err(End::NotPlain);
        }
        let (number, wire) = (tag >> 3, tag & 7);
        if number == 0 || tag > u32::MAX.into() {
            return Err(End::Damaged);
        }
        let known = usize::try_from(number - 1)
            .ok()
            .and_then(|index| schema.get(index))
            .filter(|_| groups.is_empty());
        if known.is_none() && is_entry {
            return Err(End::NotPlain);
        }
        let mut value = &[][..];
        match wire {
            0 => {
                varint(&mut rest)?;
            }
            1 | 5 => take(&mut rest, if wire == 1 { 8 } else { 4 }).map(|_| ())?,
            2 => {
                let length = varint(&mut rest)?;
                value = take(&mut rest, usize::try_from(length).map_err(|_| End::Damaged)?)?;
            }
            3 => groups.push(number),
            4 if groups.pop() == Some(number) => {}
            _ => return Err(End::Damaged),
        }
        if groups.len() > MAX_OPEN_GROUPS {
            return Err(End::NotPlain);
        }
        match (known, wire) {
            (None, _) => {}
            (Some(Field::Varint | Field::Varints), 0) => {}
            (Some(Field::Fixed64 | Field::Fixed64s), 1) => {}
            (Some(Field::Fixed32s), 5) => {}
            (Some(Field::Bytes | Field::Fixed32s | Field::Fixed64s), 2) => {}
            (Some(Field::Varints), 2) => {
                while !value.is_empty() {
                    varint(&mut value)?;
                }
            }
            (Some(Field::Message(schema)), 2) => walk(value, schema, false)?,
            (Some(Field::Map), 2) => walk(value, ENTRY, true)?,
            _ => return Err(End::NotPlain),
        }
    }
    Ok(())
}

fn varint(rest: &mut &[u8]) -> Result<u64, End> {
    let mut value = 0;
    for i in 0..10 {
        let (&byte, after) = rest.split_first().ok_or(End::Damaged)?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            return if i == 9 && byte > 1 { Err(End::NotPlain) } else { Ok(value) };
        }
    }
    Err(End::Damaged)
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Result<&'a [u8], End> {
    let (taken, after) = rest.split_at_checked(count).ok_or(End::Damaged)?;
    *rest = after;
    Ok(taken)
}
