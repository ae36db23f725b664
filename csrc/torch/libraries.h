// The libraries with which torch computes some layers as a whole, oneDNN and cuDNN: their switches, which are the
// process's, while a model is captured that would else have products in there.
#pragma once

namespace flopcuda::libraries {

// From now on, those that are on now are switched by what follows; the others never are.
void take();

// Switches them on, and then no longer.
void give_back();

// Whether let_compute() does anything.
void allow(bool allowed);

// Switches them on, until keep_out(): for what has no products.
void let_compute();

// Switches them off.
void keep_out();

}  // namespace flopcuda::libraries
