// Hands the beats of the jobs that run to those who load them, job after job, and drops those of idle experts.
//
// A job is offered first; once it is taken its beats follow, `beat_last` with the last one, and only then comes the next
// job. An expert's job waits until its router has decided.
module edgemoe_weight_dispatcher
  import edgemoe_job_pkg::*;
#(
    parameter int EXPERTS = 16
) (
    input  logic ap_clk,
    input  logic ap_rst_n,
    input  logic restart,

    input  logic [15:0] decided,
    input  logic [EXPERTS-1:0] active,

    input  logic note_valid,
    output logic note_ready,
    input  job_t note,
    input  logic asked_valid,
    output logic asked_ready,
    input  logic [31:0] asked_beats,

    output logic command_valid,  // to the ring
    input  logic command_ready,
    output logic command_drops,
    output logic [31:0] command_beats,
    input  logic ring_valid,
    output logic ring_ready,

    output logic load_valid,
    input  logic load_ready,
    output job_t load_job,
    output logic beat_valid,
    input  logic beat_ready,
    output logic beat_last
);

  localparam int EXPERT_BITS = EXPERTS > 1 ? $clog2(EXPERTS) : 1;
  typedef enum logic [1:0] {
    OFFER,  // a job, or nothing
    COMMAND,
    BEATS,
    DROP
  } state_t;

  state_t state;
  logic [15:0] passed;
  logic [31:0] left;
  logic may_be_idle;
  logic known;
  logic is_idle;
  logic over;

  assign may_be_idle = note.flags.skips_if_empty;
  assign known = !may_be_idle || passed == decided;
  assign is_idle = may_be_idle && !active[note.index[EXPERT_BITS-1:0]];

  assign load_valid = state == OFFER && note_valid && known && !is_idle;
  assign load_job = note;
  assign command_valid = state == COMMAND || (state == DROP && asked_valid);
  assign command_drops = state == DROP;
  assign command_beats = state == DROP ? asked_beats : left;
  assign beat_valid = state == BEATS && ring_valid && left != '0;
  assign ring_ready = state == BEATS && beat_ready && left != '0;
  assign beat_last = left == 32'd1;

  // A job is over once its last beat is taken, or its beats are told to be dropped.
  assign over = (state == BEATS && left == '0 && (!may_be_idle || asked_valid)) || (state == DROP && asked_valid && command_ready);
  assign note_ready = over;
  assign asked_ready = over && may_be_idle;

  always_ff @(posedge ap_clk)
    if (!ap_rst_n || restart) begin
      state  <= OFFER;
      passed <= '0;
    end else begin
      if (over && note.engine == ROUTER) passed <= passed + 1'b1;
      case (state)
        OFFER:
        if (load_valid && load_ready) state <= COMMAND;
        else if (note_valid && known && is_idle) state <= DROP;
        COMMAND: if (command_ready) state <= BEATS;
        default: if (over) state <= OFFER;
      endcase
    end

  always_ff @(posedge ap_clk)
    if (state == OFFER) left <= note.beats + 32'(note.settings_beats);
    else if (ring_valid && ring_ready) left <= left - 1'b1;

endmodule
