//! aisemble-kernels
