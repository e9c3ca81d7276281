//! GGUF files for tests.

use super::TensorType;

/// A file under construction: metadata and tensors as they are to be written, right or wrong.
#[derive(Clone)]
pub(crate) struct Writer {
    pub(crate) version: u32,
    pub(crate) alignment: usize,
    pub(super) pairs: Vec<(String, Vec<u8>)>,
    pub(super) tensors: Vec<Tensor>,
}

#[derive(Clone)]
pub(super) struct Tensor {
    name: String,
    /// Innermost first.
    dims: Vec<u64>,
    kind: u32,
    data: Vec<u8>,
    offset: Option<u64>,
}

pub(crate) fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// A string with its type in front.
pub(crate) fn typed_string(text: &str) -> Vec<u8> {
    [&8_u32.to_le_bytes()[..], &string(text)].concat()
}

/// A `u32` with its type in front.
pub(crate) fn typed_u32(number: u32) -> Vec<u8> {
    [4, number].map(u32::to_le_bytes).concat()
}

/// An `f32` with its type in front.
pub(crate) fn typed_f32(number: f32) -> Vec<u8> {
    [6_u32.to_le_bytes(), number.to_le_bytes()].concat()
}

/// A bool with its type in front.
pub(crate) fn typed_bool(value: bool) -> Vec<u8> {
    [&7_u32.to_le_bytes()[..], &[u8::from(value)]].concat()
}

/// An array of `element` with its type in front.
pub(crate) fn typed_array(element: u32, len: u64, elements: &[u8]) -> Vec<u8> {
    [&9_u32.to_le_bytes()[..], &element.to_le_bytes(), &len.to_le_bytes(), elements].concat()
}

pub(crate) fn typed_strings(texts: &[&str]) -> Vec<u8> {
    typed_array(8, texts.len() as u64, &texts.iter().flat_map(|text| string(text)).collect::<Vec<u8>>())
}

impl Writer {
    pub(crate) fn new() -> Self {
        Writer { version: 3, alignment: 32, pairs: Vec::new(), tensors: Vec::new() }
    }

    /// Takes the pair of that key away.
    pub(crate) fn remove(&mut self, key: &str) {
        self.pairs.retain(|(other, _)| other != key);
    }

    /// Takes the tensor of that name away.
    pub(crate) fn remove_tensor(&mut self, name: &str) {
        self.tensors.retain(|tensor| tensor.name != name);
    }

    /// `value` with its type in front.
    #[must_use]
    pub(crate) fn pair(mut self, key: &str, value: Vec<u8>) -> Self {
        self.pairs.push((key.to_owned(), value));
        self
    }

    /// Dimensions innermost first.
    #[must_use]
    pub(crate) fn tensor(mut self, name: &str, kind: u32, dims: &[u64], data: Vec<u8>) -> Self {
        self.tensors.push(Tensor { name: name.to_owned(), dims: dims.to_vec(), kind, data, offset: None });
        self
    }

    /// As [`tensor`](Self::tensor), with an offset of its own; its data goes where data goes.
    #[must_use]
    pub(crate) fn tensor_at(
        mut self,
        name: &str,
        kind: u32,
        dims: &[u64],
        data: Vec<u8>,
        offset: u64,
    ) -> Self {
        self = self.tensor(name, kind, dims, data);
        self.tensors.last_mut().unwrap().offset = Some(offset);
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.pairs.len() as u64).to_le_bytes());
        for (key, value) in &self.pairs {
            out.extend(string(key));
            out.extend(value);
        }
        let mut data = Vec::new();
        for tensor in &self.tensors {
            data.resize(data.len().next_multiple_of(self.alignment), 0);
            out.extend(string(&tensor.name));
            out.extend((tensor.dims.len() as u32).to_le_bytes());
            out.extend(tensor.dims.iter().flat_map(|dim| dim.to_le_bytes()));
            out.extend(tensor.kind.to_le_bytes());
            out.extend(tensor.offset.unwrap_or(data.len() as u64).to_le_bytes());
            data.extend(&tensor.data);
        }
        if !self.tensors.is_empty() {
            out.resize(out.len().next_multiple_of(self.alignment), 0);
            out.extend(data);
        }
        out
    }
}

impl Writer {
    /// The same tensors in `count` parts. The first has the metadata.
    pub(crate) fn split(&self, count: usize) -> Vec<Writer> {
        let typed_u16 = |number: usize| [&2_u32.to_le_bytes()[..], &(number as u16).to_le_bytes()].concat();
        let total = self.tensors.len();
        let mut parts = Vec::new();
        for (number, tensors) in self.tensors.chunks(total.div_ceil(count)).enumerate() {
            let mut part = if number == 0 { self.clone() } else { Writer::new() };
            part.tensors = tensors.to_vec();
            part = part
                .pair("split.no", typed_u16(number))
                .pair("split.count", typed_u16(count))
                .pair("split.tensors.count", [5_u32.to_le_bytes(), (total as i32).to_le_bytes()].concat());
            parts.push(part);
        }
        parts
    }

    /// The matrices that `which` chooses by name, if their rows fill blocks of `kind`, as such blocks: of random bytes with
    /// small scales.
    pub(crate) fn requantized(&self, kind: TensorType, which: impl Fn(&str) -> bool) -> Writer {
        let mut writer = self.clone();
        let mut state = 1_u64;
        for tensor in writer.tensors.iter_mut().filter(|tensor| tensor.dims.len() > 1 && which(&tensor.name))
        {
            let weights: u64 = tensor.dims.iter().product();
            if !tensor.dims[0].is_multiple_of(kind.block() as u64) {
                continue;
            }
            tensor.kind = kind.id();
            tensor.data.clear();
            for _ in 0..weights as usize / kind.block() {
                let start = tensor.data.len();
                for _ in 0..kind.block_bytes() {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    tensor.data.push((state >> 56) as u8);
                }
                let block = &mut tensor.data[start..];
                for &at in kind.f16_places() {
                    // 0.00049 to 0.00097, or less for scales of scales.
                    block[at + 1] = if kind.block() == 256 { 0x04 } else { 0x10 };
                }
                match kind {
                    TensorType::Mxfp4 => block[0] = 118 + block[0] % 4,
                    // Quantizers stay within -127..=127.
                    TensorType::Q8_0 => {
                        block[2..].iter_mut().filter(|code| **code == 0x80).for_each(|code| *code = 1);
                    }
                    TensorType::F32 => block[2..].copy_from_slice(&[0x80, 0x3c]),
                    TensorType::Bf16 => block[1] = 0x3c,
                    TensorType::F16 => block[1] = 0x24,
                    _ => {}
                }
            }
        }
        writer
    }
}

impl Writer {
    /// All tensors as F32 of the same values.
    pub(crate) fn decoded(&self) -> Writer {
        let mut writer = self.clone();
        for tensor in &mut writer.tensors {
            let kind = TensorType::from_id(tensor.kind).unwrap();
            let mut values = vec![0.0; tensor.dims.iter().product::<u64>() as usize];
            kind.decode(&tensor.data, &mut values);
            tensor.data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            tensor.kind = TensorType::F32.id();
        }
        writer
    }
}

impl TensorType {
    /// Where in a block f16 numbers are.
    pub(crate) fn f16_places(self) -> &'static [usize] {
        match self {
            TensorType::Q2K => &[80, 82],
            TensorType::Q3K => &[108],
            TensorType::Q6K => &[208],
            TensorType::Q4_1 | TensorType::Q5_1 | TensorType::Q4K | TensorType::Q5K => &[0, 2],
            TensorType::Mxfp4 | TensorType::F32 | TensorType::F16 | TensorType::Bf16 => &[],
            _ => &[0],
        }
    }
}
