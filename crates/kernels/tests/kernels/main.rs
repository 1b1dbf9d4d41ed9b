//! Every kernel against the plain reference, over random shapes, on every instruction set that
//! this machine has and with 1 to 3 threads.

mod samples;

mod matmul;
