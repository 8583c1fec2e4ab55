// A row of the job table, which `jobs.h` holds: what an engine does, and with what.
#ifndef EDGEMOE_JOB_H
#define EDGEMOE_JOB_H

namespace edgemoe {

// What carries out a job.
enum Engine {
  POSITIONS,    // reads the header and the position table, with which the residual stream starts
  PIXELS,       // reads the images
  PATCH_QUEUE,  // queues the tokens that the patches become
  LINEAR,
  NORM,  // reads its parameters, and a layer's settings where they lie before them, and normalises
  ATTENTION,
  ROUTER,  // reads its gate, and queues the tokens of each expert
  GATHER,  // copies the tokens of a queue side by side
  OUTPUT   // writes the residual stream
};

// Where a linear layer's results go, and what happens to them on the way.
enum Destination {
  TO_HEADS,     // queries, keys and values
  TO_HIDDEN,    // through the activation function
  TO_RESIDUAL,  // added to the residual stream
  TO_EXPERT     // scaled by the gate score, then added to the residual stream
};

// A kind of linear layer. Its blocks of outputs are computed in groups, which take turns in the two halves of
// the weight buffer: every layer has an even number of them, of which the last may be smaller than the
// others, or empty.
struct LinearShape {
  int in_words;     // operand words of a token
  int out_words;    // result words of a token
  int blocks;       // blocks of outputs
  int group;        // blocks in a group
  int pairs;        // pairs of groups
  int block_beats;  // beats of a block: its records, then the weights that meet each operand word
  int group_beats;  // beats of a full group
  int beats;        // beats of the layer
};

struct Job {
  Engine engine;
  int rows;             // rows of an image; 0 if they are those of the expert's queue
  int first;            // first beat of its parameters
  int settings_beats;   // beats of a layer's settings before them
  int setting;          // its first scalar setting
  int task_beats;       // beats from the parameters of one task to those of the next
  int expert;           // whose queue it works on
  bool skips_if_empty;  // whether it is left out if no token is in that queue
  // Of the linear engine:
  LinearShape shape = {};
  int region = 0;                      // where its operands lie
  Destination destination = TO_HEADS;  // where its results go
  bool scattered = false;  // whether its rows belong to the tokens of that queue instead of tokens 0, 1, ...
};

}  // namespace edgemoe

#endif
