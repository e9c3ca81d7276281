//! GGUF files for tests.

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
