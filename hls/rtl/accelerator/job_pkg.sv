// What no design changes: the record of a job in the weight image (64 bytes, little-endian), engines and regions.
// `codegen/schedule.py` writes the records and says what the fields mean.
package edgemoe_job_pkg;

  /* verilator lint_off UNUSEDPARAM */
  localparam int JOB_BITS = 512;
  localparam logic [7:0] JOB_VERSION = 8'd2;
  /* verilator lint_on UNUSEDPARAM */

  typedef enum logic [7:0] {
    POSITIONS = 8'd0,
    PIXELS = 8'd1,
    PATCH_QUEUE = 8'd2,
    LINEAR = 8'd3,
    NORM = 8'd4,
    ATTENTION = 8'd5,
    ROUTER = 8'd6,
    GATHER = 8'd7,
    OUTPUT = 8'd8
  } engine_t;

  typedef enum logic [7:0] {
    REGION_NONE = 8'd0,
    REGION_IMAGE = 8'd1,
    REGION_OUTPUT = 8'd2,
    REGION_STREAM = 8'd3,
    REGION_HEADS = 8'd4,
    REGION_GATE_INPUT = 8'd5,
    REGION_QUEUES = 8'd6,
    REGION_NORM = 8'd7,
    REGION_MIXED = 8'd8,
    REGION_GATHERED = 8'd9,
    REGION_HIDDEN = 8'd10
  } region_t;

  // The last field of a packed structure has the lowest bits: the first bytes of the record stand at the end.
  typedef struct packed {
    logic [2:0] unused;
    logic over_selected;
    logic to_router;
    logic weighted;
    logic scattered;
    logic skips_if_empty;
  } job_flags_t;

  typedef struct packed {
    logic [15:0] pace;
    logic [15:0] mixed_words;
    logic [15:0] first_token;
    logic [15:0] setting;
    logic [31:0] task_beats;
    logic [31:0] block_beats;
    logic [31:0] beats;
    logic [31:0] first;
    logic [15:0] settings_beats;
    logic [15:0] pairs;
    logic [15:0] group_blocks;
    logic [15:0] blocks;
    logic [15:0] destination_word;
    logic [15:0] source_word;
    logic [15:0] out_words;
    logic [15:0] words;
    logic [31:0] channels;
    logic [31:0] rows;
    logic [15:0] count;
    logic [15:0] index;
    logic [15:0] layer;
    logic [15:0] waits_for;
    logic [7:0] padding_7;
    logic [7:0] top_k;
    logic [7:0] half;
    job_flags_t flags;
    region_t destination;
    region_t source;
    engine_t engine;
    logic [7:0] version;
  } job_t;

endpackage
