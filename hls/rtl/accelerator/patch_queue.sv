// Engine PATCH_QUEUE: queue 0 becomes the tokens that the patches of all images are, in order.
//
// Each image has `first_token` tokens without a patch, then one for each of the job's rows.
module edgemoe_patch_queue
  import edgemoe_job_pkg::*;
#(
    parameter int TOKEN_BITS = 16
) (
    input  logic ap_clk,
    input  logic ap_rst_n,

    input  logic start_valid,
    output logic start_ready,
    input  job_t start_job,
    input  logic [TOKEN_BITS-1:0] start_rows,  // of all images
    output logic done,

    output logic patch_valid,
    output logic [TOKEN_BITS-1:0] patch_place,
    output logic [TOKEN_BITS-1:0] patch_token
);

  logic busy;
  logic [TOKEN_BITS-1:0] gap;  // tokens without a patch
  logic [TOKEN_BITS-1:0] patches;  // of an image
  logic [TOKEN_BITS-1:0] image_left;
  logic [TOKEN_BITS-1:0] left;
  wire unused_job = &{1'b0, start_job};

  assign start_ready = !busy;
  assign patch_valid = busy;
  assign done = busy && left == TOKEN_BITS'(1);

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) busy <= 1'b0;
    else if (!busy) busy <= start_valid;
    else if (done) busy <= 1'b0;

  always_ff @(posedge ap_clk)
    if (!busy) begin
      gap <= TOKEN_BITS'(start_job.first_token);
      patches <= TOKEN_BITS'(start_job.rows);
      image_left <= TOKEN_BITS'(start_job.rows);
      left <= start_rows;
      patch_place <= '0;
      patch_token <= TOKEN_BITS'(start_job.first_token);
    end else begin
      left <= left - 1'b1;
      patch_place <= patch_place + 1'b1;
      if (image_left == TOKEN_BITS'(1)) begin
        image_left  <= patches;
        patch_token <= patch_token + gap + 1'b1;
      end else begin
        image_left  <= image_left - 1'b1;
        patch_token <= patch_token + 1'b1;
      end
    end

`ifndef SYNTHESIS
  always_ff @(posedge ap_clk)
    if (ap_rst_n) begin
      if (start_valid) begin
        assume (start_job.engine == PATCH_QUEUE && start_rows != '0);
        assume (start_job.rows != '0 && start_job.rows < 32'(2 ** TOKEN_BITS));
      end
      if (busy) assert (left != '0 && image_left != '0 && patches != '0);
    end
`endif
`ifdef FORMAL
  initial assume (!ap_rst_n);
`endif

endmodule
