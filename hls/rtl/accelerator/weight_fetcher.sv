// Asks for the beats of job after job of the table, in chunks, as soon as there are places for them.
//
// Every job that has beats is noted for the dispatcher before the first is asked for. An expert's may turn out to be
// idle: then it is left where it is, and how many of its beats were asked for is noted as well. While its router has
// not decided (`passed` routers, `decided` fewer), it is fetched on the chance, or waits for the decision.
module edgemoe_weight_fetcher
  import edgemoe_job_pkg::*;
#(
    parameter int CHUNK = 64,  // most beats of a command: a power of two
    parameter int FREE_BITS = 8,  // of a number of places in the ring
    parameter int EXPERTS = 16
) (
    input  logic ap_clk,
    input  logic ap_rst_n,
    input  logic restart,  // a new call: no router has been passed

    input  logic [15:0] task_number,
    input  logic speculate,  // fetch experts before the router has decided
    input  logic [15:0] decided,  // routers that have decided in this call
    input  logic [EXPERTS-1:0] active,  // what the last of them decided: experts that have any token

    input  logic job_valid,
    output logic job_ready,
    input  job_t job,

    output logic note_valid,
    input  logic note_ready,
    output job_t note,
    output logic asked_valid,  // of a job that may be idle: all was asked for that ever will be
    input  logic asked_ready,
    output logic [31:0] asked_beats,

    input  logic [FREE_BITS-1:0] free,  // places in the ring
    output logic command_valid,
    input  logic command_ready,
    output logic [31:0] command_first,  // beats of the weight image
    output logic [FREE_BITS-1:0] command_beats
);

  localparam int CHUNK_BITS = $clog2(CHUNK);
  localparam int EXPERT_BITS = EXPERTS > 1 ? $clog2(EXPERTS) : 1;
  typedef enum logic [2:0] {
    TAKE,
    NOTE,
    TASKS,
    ASK,
    END
  } state_t;

  state_t state;
  job_t now;
  logic [15:0] passed;
  logic [15:0] tasks_left;
  logic [31:0] first;
  logic [31:0] left;
  logic [31:0] asked;
  logic undecided;
  logic is_idle;
  logic asks;
  logic [FREE_BITS-1:0] to_boundary;
  logic [FREE_BITS-1:0] chunk;
  logic has_beats;

  assign job_ready = state == TAKE;
  assign has_beats = job.beats != '0 || job.settings_beats != '0;
  assign note_valid = state == NOTE;
  assign note = now;
  assign asked_valid = state == END && now.flags.skips_if_empty;
  assign asked_beats = asked;

  assign undecided = passed != decided;
  assign is_idle = now.flags.skips_if_empty && !undecided && !active[now.index[EXPERT_BITS-1:0]];
  // Up to a multiple of the chunk, so that it is one burst.
  assign to_boundary = FREE_BITS'(CHUNK) - FREE_BITS'(first[CHUNK_BITS-1:0]);
  assign chunk = left < 32'(to_boundary) ? FREE_BITS'(left) : to_boundary;
  assign command_valid = state == ASK && left != '0 && !is_idle && free >= chunk
      && (speculate || !now.flags.skips_if_empty || !undecided);
  assign command_first = first;
  assign command_beats = chunk;
  assign asks = command_valid && command_ready;

  always_ff @(posedge ap_clk)
    if (!ap_rst_n || restart) begin
      state  <= TAKE;
      passed <= '0;
    end else
      case (state)
        TAKE: if (job_valid) begin
          if (job.engine == ROUTER) passed <= passed + 1'b1;
          if (has_beats) state <= NOTE;
        end
        NOTE: if (note_ready) state <= TASKS;
        TASKS: if (tasks_left == '0) state <= ASK;
        ASK: if (left == '0 || is_idle) state <= END;
        default: if (asked_ready || !asked_valid) state <= TAKE;
      endcase

  always_ff @(posedge ap_clk)
    case (state)
      TAKE: begin
        now <= job;
        first <= job.first;
        left <= job.beats + 32'(job.settings_beats);
        asked <= '0;
        tasks_left <= job.task_beats == '0 ? '0 : task_number;
      end
      TASKS: if (tasks_left != '0) begin
        first <= first + now.task_beats;
        tasks_left <= tasks_left - 1'b1;
      end
      default: if (asks) begin
        first <= first + 32'(chunk);
        left  <= left - 32'(chunk);
        asked <= asked + 32'(chunk);
      end
    endcase

`ifndef SYNTHESIS
  always_ff @(posedge ap_clk)
    if (ap_rst_n && job_valid && job_ready) begin
      assume (job.version == JOB_VERSION);
      /* verilator lint_off CMPCONST */
      assume (!job.flags.skips_if_empty || 32'(job.index) < EXPERTS);
      /* verilator lint_on CMPCONST */
    end
`endif

endmodule
